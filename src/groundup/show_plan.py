"""`groundup plan`: what a blueprint will cost, what it reads, and its problems. Builds nothing.

in:  a blueprint, the artifacts of earlier stages where they are up to date
out: a table on stdout or JSON; problems on stderr
"""

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from groundup.core.runtime import Layout
from groundup.core.standard_streams import print_json
from groundup.core.status import stage_reports
from groundup.core.store import Artifact, Store
from groundup.feasibility import READ, dataset_counts, known_problems
from groundup.parallel.stage_runner import ranks_of
from groundup.pipeline import Blueprint, planned_stages
from groundup.plan.cost import training_cost
from groundup.plan.dataset_checks import budget_of


def print_plan(plan: Blueprint, store: Store, as_json: bool) -> None:
    """Print the plan of a blueprint and its problems."""
    artifacts = built_artifacts(plan, store)
    for problem in known_problems(store, plan, artifacts, ranks_of(plan.runtime)):
        print(problem.line(), file=sys.stderr)
    values = plan_values(plan, artifacts)
    if as_json:
        print_json(values)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for key, value in values.items():
        table.add_row(
            key,
            f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else value,
        )
    Console(highlight=False).print(table)


def built_artifacts(plan: Blueprint, store: Store) -> dict[str, Artifact]:
    """The up-to-date artifacts before pretraining, by label."""
    reports = stage_reports(planned_stages(plan), store, store.previous_manifests(plan.name), store.digests())
    return {
        report.label: report.artifact
        for report in reports
        if report.label in READ and report.artifact is not None and report.state == "up to date"
    }


def plan_values(plan: Blueprint, artifacts: dict[str, Artifact]) -> dict[str, Any]:
    """Parameters, tokens, steps, epochs, FLOPs and memory of pretraining."""
    recipe = plan.pretrain.resolved()
    counts = None
    if {"tokenizer", "tokenize"} <= artifacts.keys():
        counts = dataset_counts(plan, artifacts["tokenizer"], artifacts["tokenize"])
    seq_len = plan.tokenize.seq_len
    config = (
        recipe.shape()
        if recipe.start
        else recipe.decoder_config(counts.vocab_size if counts else plan.tokenizer.vocab_size, seq_len)
    )
    budget = budget_of(recipe, counts) if counts else None
    rows = counts.batch_rows(recipe.batch_tokens) if counts else max(1, recipe.batch_tokens // seq_len)
    tokens = budget.steps * rows * seq_len if budget else recipe.tokens
    layout = plan.runtime.layout if isinstance(plan.runtime.layout, Layout) else Layout()
    cost = training_cost(config, seq_len, tokens, layout, ranks_of(plan.runtime))
    unknown = "not known before the corpus is tokenized"
    return {
        "parameters": cost.parameters,
        "training tokens": tokens,
        "tokens per step": rows * seq_len,
        "steps": budget.steps if budget else max(1, tokens // (rows * seq_len)),
        "epochs": budget.epochs if budget else unknown,
        "share never read": budget.unread_share if budget else unknown,
        "ended by": budget.ended_by if budget else unknown,
        "FLOPs": cost.flops,
        "bytes per rank, without activations": cost.state_bytes,
    }
