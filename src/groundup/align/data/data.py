"""Stage `data`: what the align steps learn from, and what alignment is evaluated on.

in:  the user's files, or the documents of the corpus
out: conversations, rankings, labelled responses and prompts (`<kind>.jsonl.zst`), split by prompt;
     rejects/ (every row that can't be used, with file, line and reason)
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Annotated, Any

from groundup.align.data.dataset import Dataset
from groundup.core.digests import UNCACHED, DigestCache
from groundup.core.recipe import Recipe
from groundup.core.records import Record
from groundup.core.registry import Plugin
from groundup.core.rng import hash_fraction
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, Metrics, StageContext, stage
from groundup.evaluate.alignment_data import KINDS, record_kind, write_records
from groundup.evaluate.examples import held_out_groups
from groundup.text.documents import REJECTS, RejectsLogWriter


class Data(Recipe):
    """The recipe of the stage: the blueprint's `[[data]]` tables."""

    datasets: tuple[Annotated[Dataset, Plugin("groundup.align.data.datasets")], ...] = ()


def external_digest(recipe: Data, digests: DigestCache = UNCACHED) -> list[Any]:
    """Digest of every file that the tables read."""
    return []


@stage(
    version=1,
    kind="alignment_data",
    external_digest=external_digest,
    headline=("conversations", "rankings", "labelled", "prompts"),
)
def data(recipe: Data, runtime: Runtime, context: StageContext, documents: Artifact) -> Metrics:
    """Read or make the records of all tables, and split them by prompt."""
    rejects = RejectsLogWriter(context.path / REJECTS / "00000.parquet")
    with rejects:
        tables = [
            list(dataset.records(documents.path, lambda entry: rejects.write([entry])))
            for dataset in recipe.datasets
        ]
    records = mixed(recipe.datasets, tables)
    write_records(context.path, records)
    return counts(records) | {"rejected": rejects.rows}


def mixed(datasets: Sequence[Dataset], tables: Sequence[Sequence[Record]]) -> list[Record]:
    """The records of all tables with their splits, capped and weighted.

    A group that one table holds out is held out of all: no prompt is on both sides.
    """
    held_out: set[str] = set()
    for dataset, table in zip(datasets, tables, strict=True):
        held_out |= held_out_groups((record.group for record in table), dataset.held_out)
    records: list[Record] = []
    for dataset, table in zip(datasets, tables, strict=True):
        records += [replace(record, split="held_out") for record in table if record.group in held_out]
        records += weighted(dataset, [record for record in table if record.group not in held_out])
    return records


def weighted(dataset: Dataset, records: Sequence[Record]) -> list[Record]:
    """Training records of one table: at most `cap` of each kind, each as often as `weight` says."""
    chosen: list[Record] = []
    for kind in KINDS:
        of_kind = [record for record in records if record_kind(record) == kind]
        if dataset.cap and len(of_kind) > dataset.cap:
            kept = set(sorted((record.id for record in of_kind), key=hash_fraction)[: dataset.cap])
            of_kind = [record for record in of_kind if record.id in kept]
        for copy in range(ceil(dataset.weight)):
            part = dataset.weight - copy
            chosen += [record for record in of_kind if part >= 1 or hash_fraction(record.id) < part]
    return chosen


def counts(records: Sequence[Record]) -> Metrics:
    """Number of records by kind, and by table, kind and split."""
    by_kind = Counter(record_kind(record) for record in records)
    by_table = Counter((record.source, record_kind(record), record.split) for record in records)
    tables: dict[str, dict[str, dict[str, int]]] = {}
    for (source, kind, split), count in by_table.items():
        tables.setdefault(source, {}).setdefault(kind, {})[split] = count
    return {kind: by_kind[kind] for kind in KINDS} | {"tables": tables}
