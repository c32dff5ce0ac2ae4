"""Global plan of curation: deduplication and mixing over all shards. One process, about 200 bytes per document.

in:  document metrics and signatures of every shard, from the filter pass
out: a plan per shard (documents to drop, with reasons; copies of the others), clusters.parquet
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.text.curate.dedup import Dedup
from groundup.text.curate.dedup.clusters import Duplicates, find_duplicates
from groundup.text.curate.dedup.repeated_spans import mark_repeats
from groundup.text.curate.filter_pass import KEPT
from groundup.text.curate.mix import Mix, MixInput, copies, epochs
from groundup.text.curate.write_pass import PLAN_SCHEMA, copy_keys
from groundup.text.documents import DOCUMENT_METRICS, TableWriter, strings
from groundup.text.shards import SHARD_BYTES

CLUSTER_SCHEMA = pa.schema(
    [pa.field(name, pa.string()) for name in ("id", "kept", "kind")] + [pa.field("similarity", pa.float64())]
)


@dataclass(frozen=True)
class CorpusPlan:
    """Number of documents, and the largest key of each shard of a mixed corpus (empty: not mixed)."""

    documents: int
    bounds: tuple[int, ...]


def plan_corpus(
    dedup: Dedup, mix: Mix, work: Path, names: list[str], out: Path, score: str = ""
) -> CorpusPlan:
    """Write plan/<shard> into `work` for every shard, and clusters.parquet into `out`.

    score: metric by which `keep = "best"` chooses; "" = none.
    """
    filtered = [_passed_documents(work / DOCUMENT_METRICS / name, score) for name in names]
    plans = [_keep_everything(table.num_rows) for table in filtered]
    dropped = [np.zeros(table.num_rows, dtype=bool) for table in filtered]
    if dedup.exact or dedup.fuzzy:
        folders = [work / "signatures" / Path(name).stem for name in names]
        duplicates = find_duplicates(
            folders, dedup, _scores(filtered, score) if dedup.keep == "best" and score else None
        )
        _plan_duplicates(duplicates, dedup, filtered, plans, dropped, out)
    if dedup.lines or dedup.paragraphs:
        mark_repeats([work / "signatures" / Path(name).stem for name in names], dedup, dropped)
    bounds = _plan_mixture(mix, filtered, plans, dropped) if mix.active else ()
    for name, plan in zip(names, plans, strict=True):
        with TableWriter[Any](work / "plan" / name, PLAN_SCHEMA) as file:
            file.write(pa.table(plan, schema=PLAN_SCHEMA))
    return CorpusPlan(sum(table.num_rows for table in filtered), bounds)


def _passed_documents(path: Path, score: str) -> pa.Table:
    """Identity and size columns of the documents that passed the filter pass, in shard order."""
    wanted = ["id", "source", "language", "outcome", "bytes_kept", *([score] if score else [])]
    table = pq.read_table(path, columns=wanted)
    return table.filter(pc.field("outcome") == KEPT).drop_columns(["outcome"])


def _keep_everything(rows: int) -> dict[str, Any]:
    """A plan that keeps every document once."""
    blank = {name: np.full(rows, None, dtype=object) for name in PLAN_SCHEMA.names if name != "copies"}
    return blank | {"copies": np.ones(rows, np.int64)}


def _scores(filtered: list[pa.Table], metric: str) -> Any:
    return np.concatenate([table.column(metric).to_numpy() for table in filtered])


def _plan_duplicates(
    duplicates: Duplicates,
    dedup: Dedup,
    filtered: list[pa.Table],
    plans: list[dict[str, Any]],
    dropped: list[Any],
    out: Path,
) -> None:
    ids = [table.column("id").to_numpy(zero_copy_only=False) for table in filtered]
    rows: dict[str, list[Any]] = {name: [] for name in CLUSTER_SCHEMA.names}
    columns = (
        duplicates.shard,
        duplicates.row,
        duplicates.kept_shard,
        duplicates.kept_row,
        duplicates.similarity,
        duplicates.kind,
    )
    for shard, row, kept_shard, kept_row, similarity, kind in zip(
        *(c.tolist() for c in columns), strict=True
    ):
        plan, kept = plans[shard], ids[kept_shard][kept_row]
        dropped[shard][row] = True
        plan["step"][row], plan["reason"][row] = "dedup", f"{kind}_duplicate"
        plan["value"][row] = similarity
        plan["threshold"][row] = dedup.similarity if kind == "near" else 1.0
        plan["detail"][row] = f"same text as {kept}" if kind == "exact" else f"near {kept}"
        for name, value in zip(CLUSTER_SCHEMA.names, (ids[shard][row], kept, kind, similarity), strict=True):
            rows[name].append(value)
    with TableWriter[Any](out / "clusters.parquet", CLUSTER_SCHEMA) as file:
        file.write(pa.table(rows, schema=CLUSTER_SCHEMA))


def _plan_mixture(
    mix: Mix, filtered: list[pa.Table], plans: list[dict[str, Any]], dropped: list[Any]
) -> tuple[int, ...]:
    left = pa.concat_tables(
        [table.filter(pa.array(~is_dropped)) for table, is_dropped in zip(filtered, dropped, strict=True)]
    )
    ids = strings(left, "id")
    corpus = MixInput(
        np.array([int(identity, 16) for identity in ids], dtype=np.uint64),
        np.array(strings(left, "source"), dtype=object),
        np.array(strings(left, "language"), dtype=object),
        left.column("bytes_kept").to_numpy(),
    )
    drawn, rate, at = copies(corpus, mix), epochs(corpus, mix), 0
    for plan, is_dropped in zip(plans, dropped, strict=True):
        rows = np.flatnonzero(~is_dropped)
        plan["copies"][rows] = drawn[at : at + len(rows)]
        for row, number in zip(rows.tolist(), range(at, at + len(rows)), strict=True):
            if not drawn[number]:
                plan["step"][row], plan["reason"][row], plan["detail"][row] = "mix", "not_sampled", ""
                plan["value"][row] = rate[corpus.source[number], corpus.language[number]]
        at += len(rows)
    if not drawn.any():
        return ()
    row, keys = copy_keys(ids, drawn, mix.seed)
    order = np.argsort(keys, kind="stable")
    ends = np.cumsum(corpus.bytes[row[order]])
    last = np.searchsorted(ends, np.arange(SHARD_BYTES, int(ends[-1]) + SHARD_BYTES, SHARD_BYTES))
    return tuple(int(keys[order[min(at, len(ends) - 1)]]) for at in last)
