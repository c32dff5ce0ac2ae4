"""Ingest task: a few files of one source -> documents and rejects log. Runs in any worker.

in:  an IngestTask (common to all tasks) and a list of files
out: shards (see shards.py), and per-file results as plain JSON

An interrupted task resumes after its last shard and skips the records already read.
"""

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from groundup.core.digests import UNCACHED, DigestCache, file_stamp
from groundup.core.jsonl import read_jsonl
from groundup.core.records import Document
from groundup.text.documents import DOCUMENTS, REJECTS, RejectsLogEntry, read_rows
from groundup.text.ingest.reader_process import read_safely
from groundup.text.ingest.safe_open import Unreadable, unreadable
from groundup.text.ingest.types import ExtractedText, FileOpener, ReadIssue, Source, SourceFile
from groundup.text.shards import TaskShards

MAX_DEATHS = 2
"""Workers that may die reading one file (a crash, or no memory left) before the file is rejected."""
CHANGED = "changed while it was read"
"""Digest of a file that was written to between the first and the last byte that ingest read."""


@dataclass(frozen=True)
class IngestTask:
    """What all tasks of one ingest share. `known`: per source, the earlier artifact to reuse unchanged files
    from.
    """

    folder: Path
    sources: dict[str, Source]
    max_document_bytes: int
    known: dict[str, Path]
    part_bytes: int = 0
    run: str = ""
    """The process that runs the tasks."""


def read_files(task: IngestTask, about: dict[str, Any]) -> dict[str, Any]:
    """Read the files of one task; `about` has its number, the source's label, and the files."""
    label = about["label"]
    mark = task.folder / f"reading-{about['number']:06d}.json"
    deaths = _deaths(mark, task.run)
    shards = TaskShards(task.folder, about["number"])
    for path, location, reject_reason, detail, size, digest in about["files"][len(shards.lines) :]:
        file = SourceFile(path, location, reject_reason, detail, size, digest)
        if deaths[path] >= MAX_DEATHS:
            file = replace(
                file, reject_reason="reader_died", detail=f"{deaths[path]} workers died reading it"
            )
        mark.write_text(json.dumps({"run": task.run, "path": path, "deaths": deaths}))
        _FileReader(task, label, shards, file).take()
    mark.unlink(missing_ok=True)
    return {"label": label} | shards.finish()


def _deaths(mark: Path, run: str) -> Counter[str]:
    """Number of workers of this run that died reading each file; the end of a whole run doesn't count."""
    try:
        last = json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Counter()
    return Counter(last["deaths"]) + Counter([last["path"]]) if last["run"] == run else Counter()


def content_digest(source: FileOpener, file: SourceFile, digests: DigestCache = UNCACHED) -> str:
    """Digest of a file's content: the source's own or SHA-256 (hex); the reason where it can't be read."""
    if file.reject_reason or file.digest:
        return file.reject_reason or file.digest

    def compute() -> str:
        with source.open(file) as opened:
            return _sha256(opened)

    try:
        with unreadable():
            return digests.of_file(file.location, compute) if isinstance(file.location, Path) else compute()
    except Unreadable as error:
        return _reject_digest(error)


def _reject_digest(error: Unreadable) -> str:
    return f"{error.reason} {error.value}"


def document_id(source: str, path: str, position: str = "") -> str:
    """16 hex digits that identify a document's origin: source label, path, position in the file."""
    return hashlib.sha256("\x00".join((source, path, position)).encode()).hexdigest()[:16]


def cut(text: str, max_bytes: int) -> list[str]:
    """Pieces of at most `max_bytes` of UTF-8 that join to `text`; split after a paragraph, line, or word.

    Every piece but the last is at least half of `max_bytes`.
    """
    data, pieces, start = text.encode(), [], 0
    while len(data) - start > max_bytes:
        end, least = start + max_bytes, start + max_bytes // 2
        for mark in (b"\n\n", b"\n", b" "):
            at = data.rfind(mark, least, end)
            if at >= 0:
                end = at + len(mark)
                break
        while data[end] & 0xC0 == 0x80:  # never within a character
            end -= 1
        pieces.append(data[start:end].decode())
        start = end
    return [*pieces, data[start:].decode()]


class _FileReader:
    """Reads one file into the task's shards."""

    def __init__(self, job: IngestTask, label: str, shards: TaskShards, file: SourceFile) -> None:
        self.job, self.label, self.shards, self.file = job, label, shards, file
        self.source = job.sources[label]
        self.line: dict[str, Any] = {
            "source": label,
            "path": file.path,
            "digest": file.reject_reason or file.digest,
        }

    def take(self) -> None:
        """Read the file, copy its rows from an earlier build, or log why it is rejected."""
        reason = self.file.reject_reason
        if reason:
            self._record([ReadIssue("rejected", reason, detail=self.file.detail)])
        else:
            try:
                reason = self._content()
            except Unreadable as error:
                reason = error.reason
                # Bytes that could be hashed and then not be read are hashed and read again.
                self.line["digest"] = (
                    CHANGED if "sha256" in self.line else self.line["digest"] or _reject_digest(error)
                )
                self._record([ReadIssue("rejected", reason, "", error.value, error.threshold, error.detail)])
        documents = sum(place[2] for place in self.shards.documents.places)
        self.line["documents"] = documents
        self.shards.end_file(self.line | ({"rejected": reason} if reason and not documents else {}))

    def _content(self) -> str:
        """Read the content; returns the reason if nothing is usable, else "". Raises Unreadable."""
        with self.source.open(self.file) as opened:
            stamp, sha256 = _stamp(opened), _sha256(opened)
            size = opened.seek(0, io.SEEK_END)
            self.line |= {"bytes": size, "sha256": sha256, "digest": self.line["digest"] or sha256}
            if not self.shards.records:
                self.shards.counters["counts"].update(files_read=1, bytes_read=size)
                earlier = self._unchanged(sha256)
                if earlier is not None:
                    return earlier
            opened.seek(0)
            rejected_reason = self._records(
                read_safely(self.source, self.file.path, opened, self.shards.records)
            )
            if _stamp(opened) != stamp:
                self.line["digest"] = CHANGED
            return rejected_reason

    def _records(self, items: Iterator[ExtractedText | ReadIssue]) -> str:
        """Add items record by record. Items without a position concern the whole file."""
        reason, resumed = "", bool(self.shards.records)
        for position, group in groupby(items, key=lambda item: item.position):
            issues_and_texts = list(group)
            if not position and resumed:
                continue  # said before the stop
            if not position:
                reason = reason or next(
                    (
                        i.reason
                        for i in issues_and_texts
                        if isinstance(i, ReadIssue) and i.outcome == "rejected"
                    ),
                    "",
                )
            self._record(issues_and_texts)
            if position:
                resumed = False
                self.shards.end_record()
        return reason

    def _record(self, items: list[ExtractedText | ReadIssue]) -> None:
        documents: list[Document] = []
        entries: list[RejectsLogEntry] = []
        for item in items:
            if isinstance(item, ExtractedText):
                documents += self._documents(item, entries)
            else:
                entries.append(self._entry(item))
        self._count(entries)
        self.shards.add(documents, entries)

    def _documents(self, item: ExtractedText, entries: list[RejectsLogEntry]) -> list[Document]:
        path = item.path or _shown(self.file.path, item.position)
        size, most, reason = len(item.text.encode()), self.job.max_document_bytes, "cut"
        if self.job.part_bytes and not item.position:
            most, reason = min(most, self.job.part_bytes), "cut_few_files"
        if size <= most:
            pieces = [("", item.text)]
        else:
            pieces = [(str(n), piece) for n, piece in enumerate(cut(item.text, most), 1)]
            note = ReadIssue("changed", reason, item.position, size, most, f"into {len(pieces)} documents")
            entries.append(self._entry(note))
        documents = []
        for piece, text in pieces:
            place = f"{item.position}/{piece}" if piece else item.position
            identity = document_id(self.label, self.file.path, place)
            shown = f"{path}#part{piece}" if piece else path
            licence = item.licence or self.source.licence
            documents.append(Document(identity, text, self.label, shown, item.language, licence))
        return documents

    def _entry(self, note: ReadIssue) -> RejectsLogEntry:
        identity = document_id(self.label, self.file.path, note.position)
        shown = _shown(self.file.path, note.position)
        return RejectsLogEntry(
            identity,
            self.label,
            shown,
            "ingest",
            note.outcome,
            note.reason,
            note.value,
            note.threshold,
            note.detail,
        )

    def _count(self, entries: list[RejectsLogEntry]) -> None:
        for entry in entries:
            name = "files_rejected" if entry.path == self.file.path else "records_rejected"
            self.shards.count("changed" if entry.outcome == "changed" else name, entry.reason)

    def _unchanged(self, sha256: str) -> str | None:
        """Copy the rows of an identical file from an earlier build; its reject reason, None if there is none."""
        earlier = self.job.known.get(self.label)
        line = _index(earlier).get((self.label, self.file.path)) if earlier else None
        if earlier is None or line is None or line.get("sha256") != sha256:
            return None
        documents = [Document(**row) for row in read_rows(earlier / DOCUMENTS, line["rows"][DOCUMENTS])]
        entries = [RejectsLogEntry(**row) for row in read_rows(earlier / REJECTS, line["rows"][REJECTS])]
        self._count(entries)
        self.shards.add(documents, entries)
        self.shards.counters["counts"]["files_unchanged"] += 1
        return str(line.get("rejected", ""))


def _stamp(file: BinaryIO) -> str:
    """Size, times and inode of a local file; nothing of a temporary copy, which only this process writes."""
    return file_stamp(os.fstat(file.fileno())) if isinstance(file, io.BufferedReader) else ""


def _sha256(file: BinaryIO) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


@lru_cache(maxsize=4)
def _index(artifact: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Lines of an earlier artifact's sources.jsonl by source and path."""
    return {(line["source"], line["path"]): line for line in read_jsonl(artifact / "sources.jsonl")}


def _shown(path: str, position: str) -> str:
    """Path for people: `novels.jsonl#12` is the record in line 12."""
    return f"{path}#{position}" if position else path
