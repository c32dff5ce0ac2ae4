"""Stage `data`: what the align steps learn from, and what alignment is evaluated on.

in:  the user's files, or the documents of the corpus
out: conversations, rankings, labelled responses and prompts (`<kind>.jsonl.zst`), split by prompt;
     passages.parquet, with a dataset that puts passages into prompts;
     rejects/ (every row that can't be used, or is left out, with file, line and reason)
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Annotated, Any

from groundup.align.data.dataset import Dataset
from groundup.align.data.datasets.grounded import Grounded
from groundup.align.data.dedup_records import Drop, duplicate_drops, evaluation_drops, grouped, place
from groundup.align.data.file_rows import FileDataset
from groundup.align.data.summary import summary
from groundup.core.digests import UNCACHED, DigestCache
from groundup.core.errors import DataError
from groundup.core.recipe import Recipe
from groundup.core.records import Record
from groundup.core.registry import Plugin
from groundup.core.rng import hash_fraction
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, Metrics, StageContext, stage
from groundup.evaluate.alignment_data import KINDS, record_kind, write_records
from groundup.evaluate.examples import held_out_groups
from groundup.text.curate.decontaminate import Decontaminate
from groundup.text.curate.eval_texts import item_digest
from groundup.text.documents import (
    REJECTS,
    RejectsLogEntry,
    RejectsLogWriter,
    read_documents,
    spell_reasons,
)
from groundup.text.ingest.ingest_task import content_digest
from groundup.text.ingest.messages import write_rejects
from groundup.text.retrieval.corpus_passages import cut_passages
from groundup.text.retrieval.retriever import write_passages

DROPPED_IN = {"exact": ("exact_duplicate",), "near": ("exact_duplicate", "near_duplicate"), "keep": ()}


class Data(Recipe):
    """The recipe of the stage: the blueprint's `[[data]]` tables, and curation's evaluation sets."""

    datasets: tuple[Annotated[Dataset, Plugin("groundup.align.data.datasets")], ...] = ()
    decontaminate: Decontaminate = Decontaminate()


def external_digest(recipe: Data, digests: DigestCache = UNCACHED) -> list[Any]:
    """Digest of every file that the tables read, and of the evaluation sets."""
    tables = [
        [
            dataset.label(),
            [[file.path, content_digest(dataset, file, digests)] for file in dataset.files()],
        ]
        for dataset in recipe.datasets
        if isinstance(dataset, FileDataset)
    ]
    return [*tables, *item_digest(recipe.decontaminate.paths, digests)] if tables else []


@stage(
    version=1,
    kind="alignment_data",
    external_digest=external_digest,
    headline=("conversations", "rankings", "labelled", "prompts"),
)
def data(recipe: Data, runtime: Runtime, context: StageContext, documents: Artifact) -> Metrics:
    """Read or make the records of all tables, clean them, and split them by prompt."""
    entries: list[RejectsLogEntry] = []
    tables = [list(dataset.records(documents.path, entries.append)) for dataset in recipe.datasets]
    tables, drops = cleaned(recipe, tables, context.temporary)
    entries += drops
    with RejectsLogWriter(context.path / REJECTS / "00000.parquet") as writer:
        writer.write(entries)
    records = mixed(recipe.datasets, tables)
    _report(recipe.datasets, records, entries, context)
    write_records(context.path, records)
    grounded = next((dataset for dataset in recipe.datasets if isinstance(dataset, Grounded)), None)
    passages: Metrics = {}
    if grounded is not None:
        corpus = cut_passages(read_documents(documents.path))
        write_passages(context.path, corpus)
        passages = {"passages": len(corpus), "passages_per_prompt": grounded.passages}
    reasons = Counter((entry.source, entry.reason) for entry in entries if entry.outcome != "changed")
    return (
        summary(records)
        | passages
        | {
            "rejected": sum(reasons.values()),
            "rejected_by_reason": {
                dataset.label(): {
                    reason: n for (source, reason), n in reasons.items() if source == dataset.label()
                }
                for dataset in recipe.datasets
            },
        }
    )


def cleaned(
    recipe: Data, tables: Sequence[Sequence[Record]], work: Path
) -> tuple[list[list[Record]], list[RejectsLogEntry]]:
    """The tables with groups, without duplicates and evaluation items; and the entries of what was dropped.

    Records that are made from documents stay as they are: curation has cleaned the documents.
    """
    settings = {dataset.label(): dataset for dataset in recipe.datasets if isinstance(dataset, FileDataset)}
    of_files = [record for table in tables for record in table if record.source in settings]
    if not of_files:
        return list(map(list, tables)), []
    of_files = grouped(of_files, work)
    drops: dict[int, Drop] = {
        drop.number: drop for drop in evaluation_drops(of_files, recipe.decontaminate, work)
    }
    for drop in duplicate_drops(of_files, work):
        if drop.reason in DROPPED_IN[settings[of_files[drop.number].source].duplicates]:
            drops.setdefault(drop.number, drop)
    kept = [record for number, record in enumerate(of_files) if number not in drops]
    clean = [
        [record for record in kept if record.source == dataset.label()]
        if dataset.label() in settings
        else list(table)
        for dataset, table in zip(recipe.datasets, tables, strict=True)
    ]
    return clean, [_entry(of_files[drop.number], drop) for drop in drops.values()]


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


def _entry(record: Record, drop: Drop) -> RejectsLogEntry:
    """The rejects-log entry of a dropped record."""
    where = place(record)
    path = where.rpartition(", line ")[0]
    return RejectsLogEntry(
        record.id, record.source, path, "data", "dropped", drop.reason, detail=f"{where}: {drop.detail}"
    )


def _report(
    datasets: Sequence[Dataset],
    records: Sequence[Record],
    entries: Sequence[RejectsLogEntry],
    context: StageContext,
) -> None:
    """A line for each table of files. Raises DataError for a table without any record."""
    for dataset in datasets:
        label = dataset.label()
        kinds = Counter(record_kind(record) for record in records if record.source == label)
        lost = [entry for entry in entries if entry.source == label]
        reasons = Counter(entry.reason for entry in lost if entry.outcome != "changed")
        example = next(
            (entry.detail for entry in lost if reasons and entry.reason == reasons.most_common(1)[0][0]), ""
        )
        rejected = f"{sum(reasons.values())} rows rejected: {spell_reasons(reasons)}; for example {example}"
        if isinstance(dataset, FileDataset) and not kinds:
            raise DataError(
                f"[[data]] `{label}`: no row can be used; {rejected if reasons else 'the files are empty'}"
            )
        if isinstance(dataset, FileDataset):
            counts = ", ".join(f"{kinds[kind]:,} {kind}" for kind in KINDS if kinds[kind])
            context.info(f"{label}: {counts}" + (f"; {rejected}" if reasons else ""))
        changes = Counter(entry.reason for entry in lost if entry.outcome == "changed")
        if changes:
            context.info(f"{label}: changed: {spell_reasons(changes)}")
    if any(entry.outcome != "changed" for entry in entries):
        path = context.path.parent.parent / "rejects" / "data.jsonl"
        write_rejects(context.path, path)
        context.info(f"every rejected row with its file and line: {path}")
