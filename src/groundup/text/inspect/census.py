"""Corpus statistics in one pass over document_metrics/: outcomes, metric distributions, sample documents.

in:  tables of document_metrics/, one row per document read
out: flows, histograms, and ids of samples
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from groundup.text.documents import strings
from groundup.text.inspect import distribution
from groundup.text.inspect.distribution import Distribution
from groundup.text.inspect.report import KEPT, Amount, Bound, Flow, Histogram, SampleGroup
from groundup.text.inspect.scan import BottomK, random_keys

_KEPT_SHOWN = 20
_PASSED_SHOWN = 3
_NEAR_SHOWN = 3
_NEAR = 0.25
"""Relative distance from a bound within which a document counts as near it."""


class Census:
    """Counts and samples of all documents that curate has read."""

    def __init__(self, bounds: Sequence[Bound], per_reason: int, indexed: int, seed: int) -> None:
        self.flows: dict[tuple[str, str], Amount] = defaultdict(Amount)
        self.outcomes: dict[str, Amount] = defaultdict(Amount)
        self._read: dict[str, Amount] = defaultdict(Amount)
        self._kept: dict[str, Amount] = defaultdict(Amount)
        self._metrics: dict[str, Distribution] = {}
        self._bounds, self._seed = bounds, seed
        self._index = BottomK(indexed)
        self._outcomes: dict[str, BottomK] = defaultdict(lambda: BottomK(per_reason))
        self._outcomes[KEPT] = BottomK(_KEPT_SHOWN * 4)
        self._near = {bound: BottomK(_NEAR_SHOWN) for bound in bounds}

    def add(self, table: pa.Table) -> None:
        """Add a table of documents."""
        self._count(table)
        ids = np.array(strings(table, "id"), str)
        drawn = random_keys(strings(table, "id"), self._seed)
        self._index.offer(drawn, ids)
        outcomes, codes = np.unique(np.array(strings(table, "outcome"), str), return_inverse=True)
        for code, outcome in enumerate(outcomes.tolist()):
            self._outcomes[outcome].offer(drawn[codes == code], ids[codes == code])
        for name, kind in zip(table.schema.names, table.schema.types, strict=True):
            if pa.types.is_floating(kind):
                column: Any = table.column(name)
                values = column.to_numpy()
                became = np.array([_became(outcome, name) for outcome in outcomes.tolist()])[codes]
                self._metrics.setdefault(name, Distribution()).add(values, became)
                self._look_near(name, values, ids, became == distribution.KEPT)

    def steps(self) -> list[str]:
        """Steps that computed a metric or dropped a document."""
        steps = [name.rpartition(".")[0] for name in self._metrics]
        return steps + [_split(outcome)[0] for outcome in self.outcomes if outcome != KEPT]

    def flow_list(self) -> tuple[Flow, ...]:
        """Outcomes of the documents of every source."""
        return tuple(
            Flow(source, *_split(outcome), amount) for (source, outcome), amount in sorted(self.flows.items())
        )

    def languages(self) -> tuple[tuple[str, Amount, Amount], ...]:
        """(language, read, kept), the largest first."""
        ordered = sorted(self._read, key=lambda language: (-self._read[language].bytes, language))
        return tuple((language, self._read[language], self._kept[language]) for language in ordered)

    def histograms(self, steps: Sequence[str]) -> tuple[Histogram, ...]:
        """One per metric, in the order of the steps."""
        histograms = []
        for name, counted in self._metrics.items():
            step, _, metric = name.rpartition(".")
            bounds = [bound for bound in self._bounds if bound.column == name]
            drawn = counted.histogram(step, metric, bounds)
            histograms += [drawn] if drawn else []
        order = {step: place for place, step in enumerate(steps)}
        return tuple(sorted(histograms, key=lambda histogram: order.get(histogram.step, -1)))

    def positive(self, step: str) -> tuple[tuple[str, int, int], ...]:
        """(metric, documents where it is above 0, its sum) of one step, the largest sum first."""
        sums = [
            (name.split(".", 1)[1], d.positive, round(d.sum))
            for name, d in self._metrics.items()
            if name.startswith(f"{step}.") and d.positive
        ]
        return tuple(sorted(sums, key=lambda item: (-item[2], item[0])))

    def groups(self, steps: Sequence[str]) -> list[SampleGroup]:
        """Sample groups: kept, dropped by reason, passed by step, near a bound."""
        dropped = [SampleGroup("dropped", *_split(outcome), lowest.seen, lowest.ids())
                   for outcome, lowest in self._outcomes.items() if outcome != KEPT]  # fmt: skip
        near = [SampleGroup("near", bound.step, bound.reason, lowest.seen, lowest.ids())
                for bound, lowest in self._near.items()]  # fmt: skip
        kept = self._outcomes[KEPT]
        groups = [SampleGroup("kept", "", "", kept.seen, kept.ids()[:_KEPT_SHOWN]), *dropped, *near]
        groups += [self._passed(step, steps[place + 1 :], place) for place, step in enumerate(steps)]
        return [group for group in groups if group.total]

    def _passed(self, step: str, later: Sequence[str], place: int) -> SampleGroup:
        """Documents that passed a step; a different sample for each step."""
        merged = BottomK(_KEPT_SHOWN * 4)
        for outcome, lowest in self._outcomes.items():
            if outcome == KEPT or _split(outcome)[0] in later:
                merged.take(lowest)
        ids = merged.ids()
        first = _PASSED_SHOWN * place % max(len(ids), 1)
        return SampleGroup("passed", step, "", merged.seen, ids[first : first + _PASSED_SHOWN])

    def index(self) -> tuple[str, ...]:
        """Ids for the page's search: all of them, or a random sample."""
        return self._index.ids()

    def _count(self, table: pa.Table) -> None:
        sums = table.group_by(["source", "language", "outcome"]).aggregate(
            [("bytes", "sum"), ("bytes", "count")]
        )
        for row in sums.to_pylist():
            amount = Amount(row["bytes_count"], row["bytes_sum"])
            language = row["language"] or ""
            self.flows[row["source"], row["outcome"]] += amount
            self.outcomes[row["outcome"]] += amount
            self._read[language] += amount
            if row["outcome"] == KEPT:
                self._kept[language] += amount

    def _look_near(
        self, name: str, values: NDArray[np.float32], ids: NDArray[np.str_], kept: NDArray[np.bool_]
    ) -> None:
        """Kept documents whose value is just within a bound. A bound of 0 has none."""
        for bound, lowest in self._near.items():
            if bound.column == name:
                for limit in filter(None, (bound.at_least, bound.at_most)):
                    distance: NDArray[Any] = np.abs(values.astype(np.float64) - limit) / abs(limit)
                    close = kept & (distance <= _NEAR)
                    lowest.offer(distance[close], ids[close])


def _became(outcome: str, metric: str) -> int:
    """Whether a document was kept, dropped by the step of this measure, or later."""
    if outcome == KEPT:
        return distribution.KEPT
    return distribution.DROPPED if metric.startswith(_split(outcome)[0] + ".") else distribution.LATER


def _split(outcome: str) -> tuple[str, str]:
    """`("", "")` for kept, else step and reason."""
    if outcome == KEPT:
        return "", ""
    step, _, reason = outcome.partition(": ")
    return step, reason
