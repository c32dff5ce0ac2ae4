"""Writes the two folders that an inspection reads, from a list of documents whose fate is given."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from groundup.core.records import Document
from groundup.text.documents import DOCUMENT_SCHEMA, REJECTS_SCHEMA, RejectsLogEntry, TableWriter
from groundup.text.inspect.corpus import Corpus

STEP = "gopher_quality"
RULES = [
    {"step": STEP, "reason": "too_few_words", "metric": f"{STEP}.words", "at_least": 50.0},
    {"step": STEP, "reason": "too_many_words", "metric": f"{STEP}.words", "at_most": 1e5},
    {"step": STEP, "reason": "many_symbols", "metric": f"{STEP}.symbols", "at_most": 0.1},
]


@dataclass(frozen=True)
class DocumentFate:
    """A document and what shall have happened to it. `final`: its text in the corpus, if it isn't `text`."""

    id: str
    text: str
    outcome: str = "kept"
    source: str = "files"
    path: str = "a.txt"
    language: str = "en"
    licence: str = "CC0"
    final: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    value: float | None = None
    threshold: float | None = None
    duplicate_of: tuple[str, float, str] | None = None


def write_corpus_fixture(
    root: Path,
    fates: Sequence[DocumentFate],
    aside: Sequence[RejectsLogEntry] = (),
    hits: Sequence[dict[str, Any]] = (),
    shard: int = 100,
) -> Corpus:
    """Folders as ingest and curate leave them, `shard` documents per shard."""
    ingested, curated = root / "ingest", root / "curate"
    names = sorted({name for document in fates for name in document.metrics})
    for number, start in enumerate(range(0, len(fates), shard)):
        _write_shard(ingested, curated, f"{number:05d}.parquet", fates[start : start + shard], names)
    with TableWriter(ingested / "rejects" / "00000.parquet", REJECTS_SCHEMA) as rejects:
        rejects.write(aside)
    lines = [
        {"source": d.source, "path": d.path, "bytes": len(d.text.encode()), "sha256": "0", "documents": 1}
        for d in fates
    ] + [
        {"source": e.source, "path": e.path, "bytes": 0, "sha256": "", "documents": 0, "rejected": e.reason}
        for e in aside
    ]
    (ingested / "sources.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    (curated / "rules.json").write_text(json.dumps(RULES))
    (curated / "manifest.json").write_text(
        json.dumps(
            {
                "recipe": {"steps": [{"use": "gopher_quality"}, {"use": "privacy"}]},
            }
        )
    )
    _write(curated / "clusters.parquet", [
        dict(zip(("id", "kept", "similarity", "kind"), (d.id, *d.duplicate_of), strict=True))
        for d in fates if d.duplicate_of
    ], {"id": pa.string(), "kept": pa.string(), "similarity": pa.float32(), "kind": pa.string()})  # fmt: skip
    _write(curated / "decontamination.parquet", hits,
           dict.fromkeys(("item", "task", "id", "text"), pa.string()) | {"overlap": pa.int64()})  # fmt: skip
    return Corpus(ingested, curated)


def _write_shard(
    ingested: Path, curated: Path, name: str, fates: Sequence[DocumentFate], names: list[str]
) -> None:
    def document(d: DocumentFate, text: str) -> Document:
        return Document(d.id, text, d.source, d.path, d.language, d.licence)

    with TableWriter[Document](ingested / "documents" / name, DOCUMENT_SCHEMA) as documents:
        documents.write([document(d, d.text) for d in fates])
    with TableWriter[Document](curated / "documents" / name, DOCUMENT_SCHEMA) as documents:
        documents.write(
            [document(d, d.text if d.final is None else d.final) for d in fates if d.outcome == "kept"]
        )
    with TableWriter[RejectsLogEntry](curated / "rejects" / name, REJECTS_SCHEMA) as rejects:
        rejects.write([entry for d in fates for entry in _entries(d)])
    about = [{"id": d.id, "source": d.source, "path": d.path, "bytes": len(d.text.encode()), "outcome": d.outcome,
              "language": d.language} | {name: d.metrics.get(name) for name in names} for d in fates]  # fmt: skip
    kinds = {"id": pa.string(), "source": pa.string(), "path": pa.string(), "bytes": pa.int64(),
             "outcome": pa.string(), "language": pa.string()}  # fmt: skip
    _write(curated / "document_metrics" / name, about, kinds | dict.fromkeys(names, pa.float32()))


def _entries(d: DocumentFate) -> list[RejectsLogEntry]:
    entries = []
    if d.final is not None:
        entries.append(
            RejectsLogEntry(d.id, d.source, d.path, "privacy", "changed", "redacted", 1.0, None, "1 email")
        )
    if d.outcome != "kept":
        step, _, reason = d.outcome.partition(": ")
        entries.append(RejectsLogEntry(d.id, d.source, d.path, step, "dropped", reason, d.value, d.threshold))
    return entries


def _write(path: Path, rows: Sequence[dict[str, Any]], kinds: dict[str, pa.DataType]) -> None:
    schema = pa.schema(list(kinds.items()))
    with TableWriter[Any](path, schema) as out:
        out.write(pa.Table.from_pylist(list(rows), schema=schema))
