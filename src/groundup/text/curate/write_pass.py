"""Write pass of curation: applies the global plan to one shard. Runs in any worker.

in:  a filtered shard and its plan: documents to drop with reasons, copies and order of the others
out: documents/, rejects/ and document_metrics/ of the artifact
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.core.atomic_io import write_text
from groundup.text.batch import DocumentBatch
from groundup.text.curate.dedup import Dedup
from groundup.text.curate.dedup.repeated_spans import cut_repeats
from groundup.text.curate.filter_pass import KEPT
from groundup.text.curate.mix import draw
from groundup.text.documents import (
    DOCUMENT_METRICS,
    DOCUMENT_SCHEMA,
    DOCUMENTS,
    REJECTS,
    REJECTS_SCHEMA,
    DocumentWriter,
    RejectsLogEntry,
    RejectsLogWriter,
    TableWriter,
    iter_groups,
    strings,
)

PLAN_SCHEMA = pa.schema(
    [pa.field(name, pa.string()) for name in ("step", "reason", "detail")]
    + [pa.field(name, pa.float64()) for name in ("value", "threshold")]
    + [pa.field("copies", pa.int64())]
)
"""One row per document that passed the filter pass. `step` is null for documents that are kept."""
SLICE_SCHEMA = DOCUMENT_SCHEMA.append(pa.field("key", pa.uint64()))


@dataclass(frozen=True)
class WriteTask:
    """Common part of all write tasks. `bounds`: largest key of each shard of a mixed corpus; empty if not mixed."""

    work: Path
    out: Path
    dedup: Dedup
    seed: int = 0
    bounds: tuple[int, ...] = ()


def write_shard(task: WriteTask, name: str) -> dict[str, Any]:
    """Apply one shard's plan; returns counts."""
    plan = pq.read_table(task.work / "plan" / name)
    stays = np.array([step is None for step in plan.column("step").to_pylist()], dtype=bool)
    kept: list[pa.Table] = []
    entries: list[pa.Table] = [pq.read_table(task.work / REJECTS / name), *_planned(task, name, plan, ~stays)]
    outcome = [
        f"{step}: {why}" if step else KEPT
        for step, why in zip(strings(plan, "step"), strings(plan, "reason"), strict=True)
    ]
    sizes = np.zeros(len(stays), np.int64)
    first = 0
    for table in iter_groups(task.work / DOCUMENTS / name):
        rows = first + np.flatnonzero(stays[first : first + table.num_rows])
        first += table.num_rows
        left = table.take(rows - (first - table.num_rows))
        if task.dedup.lines or task.dedup.paragraphs:
            left, rows = _cut(task, name, left, rows, entries, outcome)
        sizes[rows] = pc.binary_length(left.column("text")).to_numpy()
        kept.append(left)
    documents = pa.concat_tables([DOCUMENT_SCHEMA.empty_table(), *kept])
    copies = plan.column("copies").to_numpy()[[state == KEPT for state in outcome]]
    if task.bounds:
        _write_slices(task, name, documents, copies)
    else:
        with DocumentWriter(task.out / DOCUMENTS / name) as file:
            file.write(documents)
    with RejectsLogWriter(task.out / REJECTS / name) as rejects:
        rejects.write(pa.concat_tables(entries))
    _write_metrics(task, name, outcome, sizes)
    is_active = {"dedup": task.dedup.active, "mix": bool(task.bounds)}
    return _sums(documents, copies, entries[1:], [name for name, active in is_active.items() if active])


def gather_shard(task: WriteTask, number: int) -> dict[str, Any]:
    """Shard `number` of a mixed corpus: its slice of every shard, ordered by key."""
    parts = [SLICE_SCHEMA.empty_table()]
    for index in sorted((task.work / "slices").glob("*.json")):
        group = json.loads(index.read_text()).get(str(number))
        if group is not None:
            with pq.ParquetFile(index.with_suffix(".parquet")) as file:
                parts.append(file.read_row_group(group))
    table = pa.concat_tables(parts)
    table = table.sort_by([("key", "ascending"), ("id", "ascending")])
    with DocumentWriter(task.out / DOCUMENTS / f"{number:05d}.parquet") as file:
        file.write(table.drop_columns(["key"]))
    return {"documents": table.num_rows}


def copy_keys(ids: Sequence[str], copies: Any, seed: int) -> tuple[Any, Any]:
    """(row, key) for every copy of every document; keys define the shuffled order."""
    numbers = np.array([int(identity, 16) for identity in ids], dtype=np.uint64)
    rows, keys = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    for copy in range(int(copies.max()) if len(copies) else 0):
        here = np.flatnonzero(copies > copy)
        rows.append(here)
        keys.append(draw(numbers[here], seed, copy + 1))
    return np.concatenate(rows), np.concatenate(keys)


def _planned(task: WriteTask, name: str, plan: pa.Table, is_dropped: Any) -> list[pa.Table]:
    """Rejects-log entries of the documents that the plan drops."""
    rows = np.flatnonzero(is_dropped)
    who = pq.read_table(task.work / DOCUMENTS / name, columns=["id", "source", "path"]).take(rows).to_pydict()
    what = plan.take(rows).drop_columns(["copies"]).to_pydict()
    return [pa.table(who | what | {"outcome": ["dropped"] * len(rows)}, schema=REJECTS_SCHEMA)]


def _cut(
    task: WriteTask, name: str, left: pa.Table, rows: Any, entries: list[pa.Table], outcome: list[str]
) -> tuple[pa.Table, Any]:
    """Remove repeated lines or paragraphs; documents left without text are dropped."""
    if not left.num_rows:
        return left, rows
    result = cut_repeats(DocumentBatch(left), rows, task.work / "signatures" / Path(name).stem, task.dedup)
    cut_entries, texts, stays = [], [], np.ones(len(rows), dtype=bool)
    for row, document in enumerate(left.to_pylist()):
        text = result.text[row] if result.text else None
        reason = result.reason[row]
        if reason is not None:
            stays[row] = text is not None
            origin = (document["id"], document["source"], document["path"], "dedup")
            cut_entries.append(
                RejectsLogEntry(*origin, "changed" if stays[row] else "dropped", reason, result.value[row])
            )
            if not stays[row]:
                outcome[rows[row]] = f"dedup: {reason}"
        texts.append(document["text"] if text is None else text)
    if cut_entries:
        columns = {key: [getattr(entry, key) for entry in cut_entries] for key in REJECTS_SCHEMA.names}
        entries.append(pa.table(columns, schema=REJECTS_SCHEMA))
    at = left.schema.get_field_index("text")
    return left.set_column(at, "text", pa.array(texts, pa.string())).filter(pa.array(stays)), rows[stays]


def _write_metrics(task: WriteTask, name: str, outcome: list[str], sizes: Any) -> None:
    """Document metrics of the filter pass, with final outcomes and sizes."""
    table = pq.read_table(task.work / DOCUMENT_METRICS / name)
    passed = np.array([state == KEPT for state in strings(table, "outcome")], dtype=bool)
    outcomes = np.array(strings(table, "outcome"), dtype=object)
    outcomes[passed] = outcome
    kept = np.zeros(table.num_rows, np.int64)
    kept[passed] = sizes
    for column, values in (("outcome", pa.array(outcomes, pa.string())), ("bytes_kept", pa.array(kept))):
        table = table.set_column(table.schema.get_field_index(column), column, values)
    with TableWriter[Any](task.out / DOCUMENT_METRICS / name, table.schema) as file:
        file.write(table)


def _write_slices(task: WriteTask, name: str, documents: pa.Table, copies: Any) -> None:
    """Every copy with its key, one row group per shard of the mixed corpus."""
    rows, keys = copy_keys(strings(documents, "id"), copies, task.seed)
    to = np.searchsorted(np.array(task.bounds, dtype=np.uint64), keys)
    groups: dict[str, int] = {}
    path = task.work / "slices" / name
    path.parent.mkdir(exist_ok=True)
    with pq.ParquetWriter(path, SLICE_SCHEMA, compression="zstd") as file:
        for number in np.unique(to):
            in_shard = np.flatnonzero(to == number)
            part = documents.take(pa.array(rows[in_shard])).append_column(
                "key", pa.array(keys[in_shard], pa.uint64())
            )
            groups[str(number)] = len(groups)
            file.write_table(part, row_group_size=max(part.num_rows, 1))
    write_text(path.with_suffix(".json"), json.dumps(groups))


def _sums(documents: pa.Table, copies: Any, entries: list[pa.Table], steps: list[str]) -> dict[str, Any]:
    """Documents and bytes kept, per source and language; documents dropped and changed by `steps`."""
    sizes = pc.binary_length(documents.column("text")).to_numpy()
    sums: dict[str, Counter[str]] = {}
    columns = (strings(documents, "source"), strings(documents, "language"), sizes.tolist(), copies.tolist())
    for source, language, size, count in zip(*columns, strict=True):
        sums.setdefault(f"source {source}", Counter()).update(documents_kept=1, bytes_kept=size)
        sums.setdefault(f"language {language}", Counter()).update(documents=1, bytes=size)
        if count > 1:
            sums.setdefault("mix", Counter()).update(documents_repeated=1)
        sums.setdefault("mix", Counter()).update(documents=count, bytes=count * size)
    for table in entries:
        for step, state, reason in zip(
            strings(table, "step"), strings(table, "outcome"), strings(table, "reason"), strict=True
        ):
            sums.setdefault(f"step {step}", Counter()).update({state: 1})
            sums.setdefault("reasons" if state == "dropped" else "changed", Counter()).update({reason: 1})
    documents_in = documents.num_rows
    for step in reversed(steps):
        count = sums.setdefault(f"step {step}", Counter())
        documents_in += count["dropped"]
        count["documents"] = documents_in
    return {group: dict(count) for group, count in sums.items()}
