"""Stage `ingest`: sources -> raw documents.

in:  external files, listed and read by the plugins in `sources/`
out: documents/ and rejects/ (every rejected or changed file and record, with its reason),
     sources.jsonl (per file: bytes, sha256, documents, rejected records by reason, location of its rows)

No file content is fatal. A document's id is a hash of its origin (source, path within the source, position in the
file), so it survives moving the folder and editing the text. A file that an earlier build has read with the same
content and settings isn't read again: its rows are copied.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from groundup.core.atomic_io import write_text
from groundup.core.digests import UNCACHED, DigestCache
from groundup.core.errors import DataError
from groundup.core.fingerprint import canonical_json
from groundup.core.recipe import Recipe
from groundup.core.registry import Plugin, plugin_name
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext, stage
from groundup.text.executor import ExecutorTask, run_tasks
from groundup.text.ingest.ingest_task import IngestTask, content_digest, read_files
from groundup.text.ingest.messages import rejects_messages, write_rejects
from groundup.text.ingest.sources.stdlib import Stdlib
from groundup.text.ingest.types import Source, SourceFile

FEW_PARTS = 200
"""Parts, at least, into which a corpus of few files is cut, where its size allows it."""
MIN_PART_BYTES, MAX_PART_BYTES = 1 << 10, 1 << 16
SHARD_BYTES = 16 << 20
"""Approximate size of the files of one task."""


class Ingest(Recipe):
    """Sources to read."""

    sources: tuple[Annotated[Source, Plugin("groundup.text.ingest.sources")], ...] = (Stdlib(),)
    max_document_bytes: int = Field(
        default=4 << 20,
        ge=1024,
        description="longer texts are split at a paragraph or line into several documents",
    )
    few_files: int = Field(
        default=8,
        ge=0,
        description="with at most this many files, files of one text each are cut at paragraph ends into parts that "
        "count as documents, so that some are left for validation; 0 = never",
    )


def external_digest(recipe: Ingest, digests: DigestCache = UNCACHED) -> list[dict[str, Any]]:
    """Digest of every source's files: relative paths and contents. Raises DataError if there are none."""
    return [_source_digest(label, _digests_of(source, digests)) for label, source in labelled(recipe)]


@stage(version=4, kind="raw_corpus", external_digest=external_digest, headline=("documents", "bytes_read"))
def ingest(recipe: Ingest, runtime: Runtime, context: StageContext) -> dict[str, Any]:
    """Read all sources. Raises DataError if there is no document."""
    labels = dict(labelled(recipe))
    tasks = list(_tasks(labels))
    part_bytes = _part_bytes(recipe, tasks)
    settings = {label: _settings(recipe, source, part_bytes) for label, source in labels.items()}
    earlier = _known(context, settings)
    ingest_task = IngestTask(
        context.path.resolve(),
        labels,
        recipe.max_document_bytes,
        earlier,
        part_bytes,
        f"{os.getpid()}-{time.time_ns()}",
    )
    results = run_tasks(read_files, ingest_task, tasks, context, runtime, "ingest")
    lines = [line for result in results for line in result["files"]]
    context.external_read = [_source_digest(label, _digests_read(label, lines)) for label in labels]
    text = "".join(json.dumps(_without_digest(line), ensure_ascii=False) + "\n" for line in lines)
    write_text(context.file("sources.jsonl"), text)
    write_text(context.file("settings.json"), json.dumps(settings, indent=1, sort_keys=True) + "\n")
    metrics = _metrics(results)
    if not metrics["documents"]:
        raise DataError(_nothing_left(context, metrics, len(lines)))
    context.info(
        f"{metrics['documents']:,} documents from {metrics['files_read']:,} files" + _reused(results)
    )
    for message in rejects_messages(context.path, metrics):
        context.info(message)
    return metrics


def labelled(recipe: Ingest) -> Iterator[tuple[str, Source]]:
    """Each source with its label; duplicates get a number, so that document ids stay unique."""
    if not recipe.sources:
        raise DataError('ingest.sources is empty: name at least one source, e.g. use = "stdlib".')
    used = set[str]()
    for source in recipe.sources:
        assert isinstance(source, Recipe), source
        name = source.name or plugin_name(source)
        label = next(label for n in count(1) if (label := name if n == 1 else f"{name}-{n}") not in used)
        used.add(label)
        yield label, source


def _nothing_left(context: StageContext, metrics: dict[str, Any], files: int) -> str:
    """The error of a corpus without documents; the rejects log is kept in the workspace."""
    path = context.path.parent.parent / "rejects" / "ingest.jsonl"
    write_rejects(context.path, path)
    lost = "; ".join(rejects_messages(context.path, metrics, str(path)))
    return f"ingest: no document in {files} files; {lost}"


def _part_bytes(recipe: Ingest, tasks: list[ExecutorTask]) -> int:
    """Size of the parts of files with one text each, a power of two; 0 if there are enough files."""
    sizes: list[int] = [
        size for task in tasks for _, _, rejected, _, size, _ in task.about["files"] if not rejected
    ]
    if not 0 < len(sizes) <= recipe.few_files:
        return 0
    part = max(MIN_PART_BYTES, min(MAX_PART_BYTES, sum(sizes) // FEW_PARTS))
    return 1 << part.bit_length() - 1


def _settings(recipe: Ingest, source: Source, part_bytes: int) -> str:
    """Reader settings of this source that affect every file."""
    return json.dumps(
        [ingest.version, recipe.max_document_bytes, part_bytes, canonical_json(source)], sort_keys=True
    )


def _tasks(labels: dict[str, Source]) -> Iterator[ExecutorTask]:
    """Files in order, about SHARD_BYTES per task.

    Task boundaries depend on a path's hash, not on a count from the beginning: an added file moves only nearby ones.
    """
    number = 0
    for label, source in labels.items():
        files: list[SourceFile] = []
        size = 0
        for file in source.files():
            files.append(file)
            size += file.bytes
            if size >= SHARD_BYTES * (1 if _borders(file.path) else 4) // 2:
                yield _task(number, label, files, size)
                files, size, number = [], 0, number + 1
        if files:
            yield _task(number, label, files, size)
            number += 1


def _borders(path: str) -> bool:
    return hashlib.sha256(path.encode()).digest()[0] < 64


def _task(number: int, label: str, files: list[SourceFile], size: int) -> ExecutorTask:
    listed = [[f.path, str(f.location), f.reject_reason, f.detail, f.bytes, f.digest] for f in files]
    return ExecutorTask(number, {"number": number, "label": label, "files": listed}, size)


def _known(context: StageContext, settings: dict[str, str]) -> dict[str, Path]:
    """For each source the newest earlier artifact that was read with the same label and settings."""
    artifacts: dict[str, Path] = {}
    for folder in context.previous_artifacts():
        try:
            earlier = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        for label, spelled in settings.items():
            if label not in artifacts and earlier.get(label) == spelled:
                artifacts[label] = folder
    return artifacts


def _digests_of(source: Source, digests: DigestCache) -> Iterator[tuple[str, str]]:
    """Path and content digest of every file, by path."""
    for file in sorted(source.files(), key=lambda file: file.path):
        yield file.path, content_digest(source, file, digests)


def _digests_read(label: str, lines: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """The same pairs, of the bytes that were read: from the lines of sources.jsonl."""
    return iter(sorted((line["path"], line["digest"]) for line in lines if line["source"] == label))


def _without_digest(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != "digest"}


def _source_digest(label: str, digests: Iterator[tuple[str, str]]) -> dict[str, Any]:
    total, files = hashlib.sha256(), 0
    for path, digest in digests:
        total.update(json.dumps([path, digest]).encode() + b"\n")
        files += 1
    return {"source": label, "files": files, "sha256": total.hexdigest()}


def _metrics(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums over all tasks. Every record is counted: read = documents (before splitting) + rejected."""
    counts: dict[str, Counter[str]] = {
        name: sum((Counter(result[name]) for result in results), Counter())
        for name in ("files_rejected", "records_rejected", "changed")
    }
    sources: dict[str, Counter[str]] = {}
    for result in results:
        sources.setdefault(result["label"], Counter()).update(result["counts"])
    total = sum(sources.values(), Counter())
    return {
        "files_read": total["files_read"],
        "documents": total["documents"],
        "bytes_read": total["bytes_read"],
        "bytes_text": total["bytes_text"],
        "sources": {label: dict(sorted(count.items())) for label, count in sources.items()},
    } | {name: dict(sorted(count.items())) for name, count in counts.items()}


def _reused(results: list[dict[str, Any]]) -> str:
    again = sum(result["counts"].get("files_unchanged", 0) for result in results)
    return f" ({again:,} of them unchanged since an earlier build, not read again)" if again else ""
