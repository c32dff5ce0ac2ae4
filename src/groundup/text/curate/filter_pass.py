"""Filter pass of curation over one shard: every step is applied to every document. Runs in any worker.

in:  a shard of raw documents
out: documents that passed, rejects log, document metrics, deduplication signatures

Steps work on whole batches. A dropped document isn't removed at once: shared arrays (words, lines) are computed once
per batch and rebuilt only when texts change or most of the batch is dropped.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.core.recipe import Recipe
from groundup.core.registry import plugin_name
from groundup.text.batch import DocumentBatch
from groundup.text.curate.decontaminate import HITS_SCHEMA, Decontaminate, Decontaminator
from groundup.text.curate.dedup import Dedup
from groundup.text.curate.dedup.signatures import write_signatures
from groundup.text.curate.types import FilterResult, NeedsClassifier, Step, Values
from groundup.text.documents import (
    DOCUMENT_METRICS,
    DOCUMENT_SCHEMA,
    DOCUMENTS,
    REJECTS,
    REJECTS_SCHEMA,
    DocumentWriter,
    RejectsLogWriter,
    TableWriter,
    iter_groups,
    strings,
)

BATCH_BYTES = 4 << 20
"""Approximate text size of a batch, which keeps its arrays within some hundred megabytes."""
CROWDED = 0.5
"""A batch is compacted when less than this share of its documents is left."""
KEPT = "kept"


@dataclass(frozen=True)
class FilterTask:
    """Common part of all filter tasks. `work` holds the results of this pass until the write pass."""

    raw: Path
    work: Path
    steps: tuple[Step, ...]
    classifiers: Mapping[str, Path]
    dedup: Dedup
    decontaminate: Decontaminate
    metrics: tuple[str, ...]
    """Metric columns of document_metrics/."""


def filter_shard(task: FilterTask, name: str) -> dict[str, Any]:
    """Filter one shard; returns counts."""
    steps = ready(task)
    tally = Counters()
    hits: list[pa.Table] = []

    def filtered_batches(
        kept: DocumentWriter, rejects: RejectsLogWriter, metrics: TableWriter[Any]
    ) -> Iterator[DocumentBatch]:
        for table in iter_groups(task.raw / DOCUMENTS / name):
            for piece in pieces(table):
                result = apply_steps(piece, steps, task.metrics, tally)
                kept.write(result.documents)
                rejects.write(result.rejects)
                metrics.write(result.metrics)
                hits.append(result.hits)
                yield DocumentBatch(result.documents)

    with (
        DocumentWriter(task.work / DOCUMENTS / name) as kept,
        RejectsLogWriter(task.work / REJECTS / name) as rejects,
        TableWriter[Any](task.work / DOCUMENT_METRICS / name, metrics_schema(task.metrics)) as metrics,
    ):
        batches = filtered_batches(kept, rejects, metrics)
        if task.dedup.active:
            write_signatures(task.work / "signatures" / Path(name).stem, batches, task.dedup)
        else:
            for _ in batches:
                pass
    with TableWriter[Any](task.work / "hits" / name, HITS_SCHEMA) as hits_file:
        hits_file.write(pa.concat_tables([HITS_SCHEMA.empty_table(), *hits]))
    return tally.plain()


def pieces(table: pa.Table) -> Iterator[pa.Table]:
    """Slices of consecutive rows of about BATCH_BYTES."""
    ends = np.cumsum(pc.binary_length(table.column("text")).to_numpy().astype(np.int64))
    start = 0
    while start < table.num_rows:
        before = ends[start - 1] if start else 0
        end = max(int(np.searchsorted(ends, before + BATCH_BYTES, side="right")), start + 1)
        yield table.slice(start, end - start)
        start = end


def ready(task: FilterTask) -> list[tuple[str, Step | Decontaminator]]:
    """Steps by name, with classifiers loaded; decontamination last."""
    steps: list[tuple[str, Step | Decontaminator]] = []
    for name, step in named(task.steps):
        steps.append(
            (
                name,
                step.load(task.classifiers[step.classifier]) if isinstance(step, NeedsClassifier) else step,
            )
        )
    if task.decontaminate.paths:
        steps.append(("decontaminate", Decontaminator.load(task.decontaminate, task.work)))
    return steps


def named(steps: Sequence[Step]) -> Iterator[tuple[str, Step]]:
    """Each step with its name; repeated steps get a number."""
    seen: Counter[str] = Counter()
    for step in steps:
        assert isinstance(step, Recipe), step
        name = plugin_name(step)
        seen[name] += 1
        yield (name if seen[name] == 1 else f"{name}-{seen[name]}"), step


def metrics_schema(names: Sequence[str]) -> pa.Schema:
    """One row per document read: identity, outcome, and metrics."""
    texts = [pa.field(name, pa.string()) for name in ("id", "source", "path", "language", "outcome")]
    sizes = [pa.field(name, pa.int64()) for name in ("bytes", "bytes_kept")]
    measured = [pa.field(name, pa.float32()) for name in names]
    return pa.schema(cast(list[Any], texts + sizes) + measured)


@dataclass
class Counters:
    """Counts of documents and bytes: total, per source, per step, per reason."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, group: str, **numbers: int) -> None:
        """Add to the counts of a group such as `source files` or `step length`."""
        self.counts.setdefault(group, Counter()).update(numbers)

    def plain(self) -> dict[str, dict[str, int]]:
        """As plain JSON."""
        return {group: dict(count) for group, count in self.counts.items()}


@dataclass(frozen=True, slots=True)
class FilteredBatch:
    """Documents of a batch that passed, and the records about all of it."""

    documents: pa.Table
    rejects: pa.Table
    metrics: pa.Table
    hits: pa.Table


def apply_steps(
    table: pa.Table,
    steps: Sequence[tuple[str, Step | Decontaminator]],
    columns: Sequence[str],
    tally: Counters,
) -> FilteredBatch:
    """Apply all steps to one batch, in order."""
    run = _Run(table)
    hits = HITS_SCHEMA.empty_table()
    for name, step in steps:
        if not run.alive.any():
            break
        sizes = run.batch.bytes[run.alive]
        tally.add(f"step {name}", documents=len(sizes), bytes=int(sizes.sum()))
        result = step.apply(run.batch)
        if isinstance(step, Decontaminator):
            hits = step.hits(run.batch, run.alive)
        run.apply(name, result, tally)
    return run.result(columns, hits, tally)


class _Run:
    """State of one batch between steps. `rows` maps its rows to those of the original batch."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.batch = DocumentBatch(table)
        self.read = self.batch.bytes
        self.rows = np.arange(table.num_rows)
        self.alive = np.ones(table.num_rows, dtype=bool)
        self.outcome = np.full(table.num_rows, KEPT, dtype=object)
        self.language = np.array(strings(table, "language"), dtype=object)
        self.metrics: dict[str, Values] = {}
        self.entries: list[pa.Table] = []

    def apply(self, name: str, result: FilterResult, tally: Counters) -> None:
        """Record a step's result, and drop or change documents."""
        assert len(result.reason) == self.batch.rows, (name, len(result.reason), self.batch.rows)
        for metric, values in result.metrics.items():
            column = self.metrics.setdefault(f"{name}.{metric}", np.full(len(self.read), np.nan))
            column[self.rows[self.alive]] = values[self.alive]
        if result.language is not None:
            self.language[self.rows[self.alive]] = np.array(result.language, dtype=object)[self.alive]
        marked = [row for row in np.flatnonzero(self.alive).tolist() if result.reason[row] is not None]
        texts = result.text or [None] * self.batch.rows
        dropped = [row for row in marked if texts[row] is None]
        if marked:
            self.entries.append(_entries(name, self.batch, result, marked, texts))
            self._count(name, result, marked, texts, tally)
        self.alive[dropped] = False
        for row in dropped:
            self.outcome[self.rows[row]] = f"{name}: {result.reason[row]}"
        self._rebuild(result, texts, changed=len(marked) > len(dropped))

    def _rebuild(self, result: FilterResult, texts: Sequence[str | None], changed: bool) -> None:
        """Update the batch; cached arrays are kept as long as its texts don't change."""
        documents = self.batch.documents
        if result.language is not None:
            self.batch.documents = documents = _replaced(documents, "language", result.language)
        if changed:
            new = [was if now is None else now for was, now in zip(self.batch.texts, texts, strict=True)]
            documents = _replaced(documents, "text", new)
        if changed or self.alive.mean() < CROWDED:
            self.batch = DocumentBatch(documents.filter(pa.array(self.alive)))
            self.rows, self.alive = self.rows[self.alive], np.ones(int(self.alive.sum()), dtype=bool)

    def _count(
        self,
        name: str,
        result: FilterResult,
        marked: Sequence[int],
        texts: Sequence[str | None],
        tally: Counters,
    ) -> None:
        for row in marked:
            reason, size = str(result.reason[row]), int(self.batch.bytes[row])
            if texts[row] is None:
                tally.add(f"step {name}", dropped=1, bytes_dropped=size)
                tally.add("reasons", **{reason: 1})
            else:
                tally.add(f"step {name}", changed=1)
                tally.add("changed", **{reason: 1})

    def result(self, columns: Sequence[str], hits: pa.Table, tally: Counters) -> FilteredBatch:
        """Documents that passed, rejects log, metrics; counts documents read per source."""
        kept = self.batch.documents.filter(pa.array(self.alive)).cast(DOCUMENT_SCHEMA)
        sizes = np.zeros(len(self.read), np.int64)
        sizes[self.rows[self.alive]] = self.batch.bytes[self.alive]
        sources, which = np.unique(strings(self.table, "source"), return_inverse=True)
        for number, source in enumerate(sources):
            group_bytes = self.read[which == number]
            tally.add(f"source {source}", documents_read=len(group_bytes), bytes_read=int(group_bytes.sum()))
        fixed: dict[str, Any] = {name: self.table.column(name) for name in ("id", "source", "path")}
        fixed |= {"language": self.language, "outcome": self.outcome, "bytes": self.read, "bytes_kept": sizes}
        nothing = np.full(len(self.read), np.nan)
        measured = {name: self.metrics.get(name, nothing).astype(np.float32) for name in columns}
        rejects = pa.concat_tables([REJECTS_SCHEMA.empty_table(), *self.entries])
        return FilteredBatch(kept, rejects, pa.table(fixed | measured, schema=metrics_schema(columns)), hits)


def _replaced(documents: pa.Table, column: str, values: Sequence[str]) -> pa.Table:
    at = documents.schema.get_field_index(column)
    return documents.set_column(at, column, pa.array(values, pa.string()))


def _entries(
    step: str,
    batch: DocumentBatch,
    result: FilterResult,
    marked: Sequence[int],
    texts: Sequence[str | None],
) -> pa.Table:
    """Rejects-log entries of one step for one batch."""
    named_rows = (
        batch.documents.select(["id", "source", "path"]).take(pa.array(marked, pa.int64())).to_pydict()
    )
    columns = named_rows | {
        "step": [step] * len(marked),
        "outcome": ["dropped" if texts[row] is None else "changed" for row in marked],
        "reason": [result.reason[row] for row in marked],
        "value": [result.value[row] for row in marked],
        "threshold": [result.threshold[row] for row in marked],
        "detail": [result.detail[row] if result.detail else "" for row in marked],
    }
    return pa.table(columns, schema=REJECTS_SCHEMA)
