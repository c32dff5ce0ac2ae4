"""Types shared by the curate stage: filter results, rules and the `Step` protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from groundup.text.batch import DocumentBatch

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FilterResult:
    """Result of a step for every document of a batch, column by column.

    `reason` is None for a document that passes. With a reason and no replacement `text` it is dropped; with both it is
    kept, changed. `value` and `threshold` are the numbers compared, `detail` text for the rejects log. `metrics` has
    every computed value, also of documents that pass; NaN where it doesn't apply. `language` replaces the documents'.
    """

    reason: Sequence[str | None]
    value: Sequence[float | None]
    threshold: Sequence[float | None]
    detail: Sequence[str] | None = None
    text: Sequence[str | None] | None = None
    metrics: Mapping[str, Values] = field(default_factory=dict)
    language: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """Bound on one metric: a document outside `at_least <= value <= at_most` is dropped for `reason`."""

    reason: str
    metric: str
    at_least: float = -np.inf
    at_most: float = np.inf


class Step(Protocol):
    """Protocol of a curation step: filters or edits documents batch by batch, each independently of the others."""

    def apply(self, batch: DocumentBatch) -> FilterResult:
        """Result for every row of the batch."""


@runtime_checkable
class HasRules(Protocol):
    """A step whose rules are bounds on metrics; `groundup inspect` draws them."""

    def rules(self) -> tuple[Rule, ...]:
        """The rules in the order in which they apply."""


@runtime_checkable
class NeedsClassifier(Protocol):
    """A step that needs a trained classifier, by its name in the blueprint."""

    classifier: str

    def load(self, model: Path) -> Step:
        """The step with the classifier in the folder `model`."""


def apply_rules(metrics: Mapping[str, Values], rules: Sequence[Rule], rows: int) -> FilterResult:
    """Every document's reason is the first rule that it breaks. NaN breaks none."""
    reason: list[str | None] = [None] * rows
    value: list[float | None] = [None] * rows
    threshold: list[float | None] = [None] * rows
    free = np.ones(rows, dtype=bool)
    for rule in rules:
        values = metrics[rule.metric]
        low, high = values < rule.at_least, values > rule.at_most
        for row in np.flatnonzero((low | high) & free):
            reason[row], value[row] = rule.reason, float(values[row])
            threshold[row] = float(rule.at_least if low[row] else rule.at_most)
        free &= ~(low | high)
    return FilterResult(reason, value, threshold, metrics=metrics)
