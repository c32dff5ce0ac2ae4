"""Stage `curate`: raw documents -> corpus, with a rejects log of every document dropped or changed.

in:  the shards of ingest; classifiers, by name
out: documents/, rejects/, document_metrics/ (per document read: its outcome and all metrics), clusters.parquet
     (duplicates), decontamination.parquet (matches with evaluation items), rules.json; read = kept + dropped

1. Filter pass, per shard (filter_pass.py): the steps run in blueprint order; deduplication signatures are computed.
2. Global plan (global_plan.py): duplicates are found and the mixture is sampled, which gives each shard a plan.
3. Write pass, per shard (write_pass.py): the plans are applied.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq

from groundup.core.atomic_io import write_text
from groundup.core.digests import UNCACHED, DigestCache
from groundup.core.errors import DataError
from groundup.core.recipe import Recipe
from groundup.core.registry import Plugin
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, StageContext, stage
from groundup.text.batch import DocumentBatch
from groundup.text.curate.decontaminate import HITS_SCHEMA, Decontaminate, write_index
from groundup.text.curate.dedup import Dedup
from groundup.text.curate.eval_texts import evaluation_items, item_digest
from groundup.text.curate.filter_pass import FilterTask, filter_shard, named, ready
from groundup.text.curate.global_plan import plan_corpus
from groundup.text.curate.mix import Mix
from groundup.text.curate.steps.gopher_repetition import GopherRepetition
from groundup.text.curate.steps.language import Language
from groundup.text.curate.steps.length import Length
from groundup.text.curate.steps.repair import Repair
from groundup.text.curate.types import HasRules, NeedsClassifier, Step
from groundup.text.curate.write_pass import WriteTask, gather_shard, write_shard
from groundup.text.documents import (
    DOCUMENT_SCHEMA,
    DOCUMENTS,
    REJECTS,
    TableWriter,
    count_rows,
    shards,
    spell_reasons,
)
from groundup.text.executor import ExecutorTask, run_tasks


class Curate(Recipe):
    """Steps, deduplication, decontamination and mixing of the corpus."""

    steps: tuple[Annotated[Step, Plugin("groundup.text.curate.steps")], ...] = (
        Repair(),
        Language(),
        Length(),
        GopherRepetition(),
    )
    dedup: Dedup = Dedup()
    decontaminate: Decontaminate = Decontaminate()
    mix: Mix = Mix()


def external_digest(recipe: Curate, digests: DigestCache = UNCACHED) -> Any:
    """Digest of the evaluation sets. Raises DataError for a missing path."""
    paths = recipe.decontaminate.paths
    return item_digest(paths, digests) if paths else None


@stage(
    version=3,
    kind="corpus",
    external_digest=external_digest,
    headline=("documents_kept", "documents_dropped", "bytes_kept"),
)
def curate(
    recipe: Curate,
    runtime: Runtime,
    context: StageContext,
    raw: Artifact,
    classifiers: Mapping[str, Artifact],
) -> dict[str, Any]:
    """Curate all documents of `raw`. Raises DataError, with the most frequent reasons, if none is left."""
    work = (context.temporary / "curate").resolve()
    work.mkdir(exist_ok=True)
    totals: dict[str, Counter[str]] = {}
    if recipe.decontaminate.paths:
        items = evaluation_items(recipe.decontaminate.paths)
        totals["decontamination"] = Counter(write_index(recipe.decontaminate, items, work))
    names = [shard.name for shard in shards(raw.path / DOCUMENTS)]
    sizes = {name: (raw.path / DOCUMENTS / name).stat().st_size * 3 for name in names}  # packed about 3:1
    filter_task = _filter_task(
        recipe, raw.path.resolve(), work, {name: item.path.resolve() for name, item in classifiers.items()}
    )
    tasks = [ExecutorTask(number, name, sizes[name]) for number, name in enumerate(names)]
    _add(totals, run_tasks(filter_shard, filter_task, tasks, context, runtime, "filter"))
    _check(recipe, totals)
    with context.track("find duplicates", count_rows(work), "documents") as progress:
        plan = plan_corpus(recipe.dedup, recipe.mix, work, names, context.path, _score(recipe))
        progress.advance(plan.documents)
    write_task = WriteTask(work, context.path.resolve(), recipe.dedup, recipe.mix.seed, plan.bounds)
    _add(totals, run_tasks(write_shard, write_task, tasks, context, runtime, "write"))
    if plan.bounds:
        gathering = [ExecutorTask(number, number, 1 << 24) for number in range(len(plan.bounds))]
        run_tasks(gather_shard, write_task, gathering, context, runtime, "mix")
    _write_reports(filter_task, context, names)
    metrics = _metrics(totals)
    _log_summary(context, metrics)
    return metrics


def _filter_task(recipe: Curate, raw: Path, work: Path, classifiers: dict[str, Path]) -> FilterTask:
    """Common part of all filter tasks; metric names are taken from the steps' result for an empty batch."""
    task = FilterTask(raw, work, recipe.steps, classifiers, recipe.dedup, recipe.decontaminate, ())
    empty = DocumentBatch(DOCUMENT_SCHEMA.empty_table())
    measured = [f"{name}.{key}" for name, step in ready(task) for key in step.apply(empty).metrics]
    return replace(task, metrics=tuple(measured))


def _score(recipe: Curate) -> str:
    """Metric that ranks documents: the first classifier's score."""
    return next(
        (
            f"{name}.{step.classifier}"
            for name, step in named(recipe.steps)
            if isinstance(step, NeedsClassifier)
        ),
        "",
    )


def _add(totals: dict[str, Counter[str]], results: list[dict[str, Any]]) -> None:
    for result in results:
        for group, counts in result.items():
            totals.setdefault(group, Counter()).update(counts)


def _check(recipe: Curate, totals: dict[str, Counter[str]]) -> None:
    """Raises DataError if the steps drop every document."""
    read = sum(count["documents_read"] for group, count in totals.items() if group.startswith("source "))
    dropped = totals.get("reasons", Counter())
    if read == dropped.total():
        raise DataError(
            f"curate: none of {read} documents is left. Dropped for: {spell_reasons(dropped)}. "
            "Loosen these rules under [[curate.steps]], or give it other documents."
        )


def _write_reports(task: FilterTask, context: StageContext, names: list[str]) -> None:
    rules = [
        {"step": name, "reason": rule.reason, "metric": f"{name}.{rule.metric}"}
        | {key: value for key in ("at_least", "at_most") if abs(value := getattr(rule, key)) != float("inf")}
        for name, step in ready(task)
        if isinstance(step, HasRules)
        for rule in step.rules()
    ]
    write_text(context.file("rules.json"), json.dumps(rules, indent=1) + "\n")
    if task.decontaminate.paths:
        with TableWriter[Any](context.file("decontamination.parquet"), HITS_SCHEMA) as file:
            for name in names:
                file.write(pq.read_table(task.work / "hits" / name))


def _metrics(totals: dict[str, Counter[str]]) -> dict[str, Any]:
    def groups(kind: str) -> dict[str, dict[str, int]]:
        return {
            name.split(" ", 1)[1]: dict(count)
            for name, count in totals.items()
            if name.startswith(f"{kind} ")
        }

    keys = ("documents_read", "documents_kept", "bytes_read", "bytes_kept")
    sources = {
        name: {key: count.get(key, 0) for key in keys} for name, count in sorted(groups("source").items())
    }
    total = {key: sum(count[key] for count in sources.values()) for key in keys}
    dropped = totals.get("reasons", Counter()).total()
    assert total["documents_read"] == total["documents_kept"] + dropped, (total, dropped)
    return total | {
        "documents_dropped": dropped,
        "reasons": dict(totals.get("reasons", Counter()).most_common()),
        "changed": dict(totals.get("changed", Counter()).most_common()),
        "sources": sources,
        "steps": groups("step"),
        "languages": dict(sorted(groups("language").items(), key=lambda item: -item[1]["documents"])),
        "decontamination": dict(totals.get("decontamination", {})),
        "mix": dict(totals.get("mix", {})),
    }


def _log_summary(context: StageContext, metrics: dict[str, Any]) -> None:
    context.info(f"{metrics['documents_kept']:,} of {metrics['documents_read']:,} documents kept")
    if metrics["reasons"]:
        context.info(f"dropped, each listed in {REJECTS}/: {spell_reasons(Counter(metrics['reasons']))}")
