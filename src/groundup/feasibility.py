"""Checks of a blueprint and its data: problems that make a later stage impossible or doubtful, before it runs.

in:  a blueprint; the artifacts that a run or an earlier one has made so far
out: problems: of the blueprint alone, of the token dataset, of the alignment data

`run` stops before pretraining where a stage is impossible; `status` and `plan` print the same lines.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import get_args

from groundup.core.errors import DataError, GroundupError
from groundup.core.fingerprint import digest
from groundup.core.progress import Reporter
from groundup.core.records import Prompt, Split
from groundup.core.store import Artifact, Store
from groundup.evaluate.alignment_data import AlignmentData, RecordKind, to_prompt
from groundup.parallel.context import check_layout
from groundup.pipeline import Blueprint
from groundup.plan.dataset_checks import DatasetCounts, dataset_problems, vocabulary_problems
from groundup.plan.problem import KeptProblems, Problem, keep_problems, load_problems
from groundup.plan.settings import unused_settings
from groundup.plan.step_checks import PromptLengths, data_problems, limit_problems, recipe_problems
from groundup.text.ingest.ingest import labelled
from groundup.tokens.tokenizer import Tokenizer

READ = ("curate", "tokenizer", "tokenize", "data")
"""Stages before pretraining whose artifacts decide whether the later ones are possible."""


def blueprint_problems(plan: Blueprint, ranks: int) -> list[Problem]:
    """Problems that need nothing but the blueprint and the number of ranks; 0 = unknown."""
    problems = [Problem("", text) for text in unused_settings(plan)]
    if ranks and plan.runtime.layout != "auto":
        try:
            check_layout(plan.runtime.layout, ranks)
        except GroundupError as error:
            problems.append(Problem("pretrain", str(error), True))
    context = _context(plan)
    for step in plan.align:
        problems += recipe_problems(step, context, plan.runtime, ranks)
    if plan.tasks and plan.evaluate.max_new_tokens >= context:
        problems.append(
            Problem(
                "evaluate",
                f"evaluate.max_new_tokens = {plan.evaluate.max_new_tokens}: the context has {context} tokens, so "
                "answers end where it is full",
            )
        )
    return problems


def corpus_problems(plan: Blueprint, corpus: Artifact) -> Iterator[Problem]:
    """Problems of the documents that curation kept."""
    kept = {name: counts["documents_kept"] for name, counts in corpus.metrics().get("sources", {}).items()}
    for label, source in labelled(plan.ingest):
        if not kept.get(label) and (source.weight is not None or len(kept) > 1):
            weight = f" (weight = {source.weight:g})" if source.weight is not None else ""
            yield Problem("curate", f"ingest.sources `{label}`{weight}: no document of it is in the corpus")


def token_problems(plan: Blueprint, tokenizer: Artifact, tokens: Artifact) -> Iterator[Problem]:
    """Problems of the token dataset."""
    counts = dataset_counts(plan, tokenizer, tokens)
    if not plan.tokenizer.start:
        yield from vocabulary_problems(plan.tokenizer.vocab_size, counts.vocab_size)
    yield from dataset_problems(plan.pretrain.resolved(), counts, derived_tokens=plan.pretrain.tokens == 0)


def dataset_counts(plan: Blueprint, tokenizer: Artifact, tokens: Artifact) -> DatasetCounts:
    """The counts in the manifests of tokenizer and tokenize."""
    metrics = tokens.metrics()
    return DatasetCounts(
        plan.tokenize.seq_len,
        metrics["train_tokens"],
        metrics["train_rows"],
        metrics["validation_rows"],
        tokenizer.metrics()["vocab_size"],
    )


def step_problems(plan: Blueprint, data: Artifact, tokenizer: Artifact) -> Iterator[Problem]:
    """Problems of what the align steps learn from."""
    loaded, context = Tokenizer.load(tokenizer.path), _context(plan)
    for step in plan.align:
        records = AlignmentData.load(data.path, step.data)
        splits = {
            split: PromptLengths.of(_prompts(records, step.method.learns_from, split), loaded)
            for split in get_args(Split)
        }
        row = step.method.row_tokens(context)
        yield from data_problems(step, row, splits["train"], splits["held_out"])
        yield from limit_problems(step, splits["train"])


def _prompts(records: AlignmentData, kinds: Collection[RecordKind], split: Split) -> list[Prompt]:
    """The prompts of all records of some kinds."""
    return [
        record if isinstance(record, Prompt) else to_prompt(record)
        for kind in sorted(kinds)
        for record in getattr(records, kind)(split)
    ]


def problems_of(plan: Blueprint, artifacts: Mapping[str, Artifact], ranks: int) -> list[Problem]:
    """All problems that can be known from these artifacts."""
    problems = blueprint_problems(plan, ranks)
    if "curate" in artifacts:
        problems += corpus_problems(plan, artifacts["curate"])
    if {"tokenizer", "tokenize"} <= artifacts.keys():
        problems += token_problems(plan, artifacts["tokenizer"], artifacts["tokenize"])
    if {"tokenizer", "data"} <= artifacts.keys() and not any(problem.impossible for problem in problems):
        problems += step_problems(plan, artifacts["data"], artifacts["tokenizer"])
    return problems


@dataclass
class FeasibilityCheck:
    """Called by the builder before each stage: reports problems once, and stops a run that would fail later."""

    plan: Blueprint
    store: Store
    reporter: Reporter
    until: str
    ranks: int
    _reported: set[str] = field(default_factory=set)

    def before(self, label: str, artifacts: Mapping[str, Artifact]) -> None:
        """Check what is known before the stage `label`. Raises DataError for impossible stages of this run.

        The blueprint is checked before the first stage, data before pretraining.
        """
        if artifacts and label != "pretrain":
            return
        problems = known_problems(self.store, self.plan, artifacts, self.ranks)
        labels = self.plan.labels()
        wanted = labels[: labels.index(self.until) + 1] if self.until else labels
        impossible = [item for item in problems if item.impossible and item.stage in wanted]
        if impossible:
            raise DataError("\n".join(item.text for item in impossible))
        for item in problems:
            if item.line() not in self._reported:
                self._reported.add(item.line())
                self.reporter.info(f"  {item.line()}")


def known_problems(
    store: Store, plan: Blueprint, artifacts: Mapping[str, Artifact], ranks: int
) -> list[Problem]:
    """The problems of a plan with these artifacts, from the workspace where they were found before."""
    contents = {label: artifacts[label].digest() for label in READ if label in artifacts}
    kept = load_problems(store, plan_digest(plan))
    if kept is not None and kept.contents == contents and kept.ranks == ranks:
        return kept.problems
    problems = problems_of(plan, artifacts, ranks)
    keep_problems(store, plan_digest(plan), KeptProblems(contents, ranks, problems))
    return problems


def plan_digest(plan: Blueprint) -> str:
    """Digest of a blueprint with its runtime."""
    return digest(plan.model_dump(mode="json"))


def _context(plan: Blueprint) -> int:
    """Context of the model in tokens."""
    return max(plan.tokenize.seq_len, plan.pretrain.shape().max_seq_len if plan.pretrain.start else 0)
