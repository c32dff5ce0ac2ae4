"""Histogram of one metric over any number of documents, in one pass and bounded memory.

in:  values, batch by batch, and the outcome of each document
out: Histogram

Values are counted by the first 21 bits of their float32 (sign, exponent, 12 bits of the fraction): integers up to
8191 are exact, others to 0.02 %. Range and scale are chosen at the end.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from groundup.text.inspect.report import Bound, Histogram, Threshold

Floats = NDArray[np.float64]

BARS = 40
KEPT, LATER, DROPPED, OUTCOMES = 0, 1, 2, 3
_DROPPED_BITS = 11
_COMPACT = 64
"""Number of batches that are summed up at a time."""


class Distribution:
    """Counts of values, separately for documents kept, dropped later, and dropped by the metric's step."""

    def __init__(self) -> None:
        self._keys: list[NDArray[np.int64]] = []
        self._counts: list[NDArray[np.int64]] = []
        self.sum = 0.0
        self.positive = 0

    def add(self, values: NDArray[np.floating], outcome: NDArray[np.integer]) -> None:
        """Count `values` [rows], `outcome` [rows] being KEPT, LATER or DROPPED; NaN isn't counted."""
        there = ~np.isnan(values)
        clipped = np.clip(values[there], -3e38, 3e38).astype(np.float32)
        self.sum += float(clipped.sum(dtype=np.float64))
        self.positive += int(np.count_nonzero(clipped > 0))
        bits = clipped.view(np.int32).astype(np.int64)
        size = (bits & 0x7FFFFFFF) >> _DROPPED_BITS
        key = np.where(bits < 0, -size, size)
        self._append(*np.unique(key * OUTCOMES + outcome[there], return_counts=True))

    def counts(self) -> tuple[Floats, NDArray[np.int64]]:
        """Distinct values in ascending order, and documents by outcome and value: [OUTCOMES, values]."""
        self._add_up()
        if not self._keys:
            return np.zeros(0), np.zeros((OUTCOMES, 0), np.int64)
        distinct, place = np.unique(self._keys[0] // OUTCOMES, return_inverse=True)
        counts = np.zeros((OUTCOMES, len(distinct)), np.int64)
        counts[self._keys[0] % OUTCOMES, place] = self._counts[0]
        size = (np.abs(distinct) << _DROPPED_BITS).astype(np.int32).view(np.float32).astype(np.float64)
        return np.where(distinct < 0, -size, size), counts

    def histogram(self, step: str, metric: str, bounds: Sequence[Bound] = ()) -> Histogram | None:
        """Histogram with thresholds; None without a value."""
        values, counts = self.counts()
        if not len(values):
            return None
        total = counts.sum(axis=0)
        limits = [limit for bound in bounds for limit in (bound.at_least, bound.at_most) if limit is not None]
        scale = _Scale.fitting(values, total, limits)
        bar = scale.bar(values)
        kept, later, dropped = (
            tuple(np.bincount(bar, part, scale.bars).astype(int).tolist()) for part in counts
        )
        low, median, high = (quantile(values, total, share) for share in (0.01, 0.5, 0.99))
        return Histogram(
            step=step,
            metric=metric,
            documents=int(total.sum()),
            kept=kept,
            later=later,
            dropped=dropped,
            ticks=scale.ticks(),
            thresholds=tuple(mark for bound in bounds for mark in _thresholds(bound, scale)),
            low=low,
            median=median,
            high=high,
            log=scale.log,
        )

    def _append(self, keys: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        self._keys.append(keys)
        self._counts.append(counts)
        if len(self._keys) > _COMPACT:
            self._add_up()

    def _add_up(self) -> None:
        if len(self._keys) > 1:
            keys, place = np.unique(np.concatenate(self._keys), return_inverse=True)
            counts = np.bincount(place, np.concatenate(self._counts), len(keys)).astype(np.int64)
            self._keys, self._counts = [keys], [counts]


def quantile(values: Floats, counts: NDArray[np.int64], share: float) -> float:
    """The least of the ascending `values` at or below which `share` of all counts are."""
    running = np.cumsum(counts)
    return float(values[min(int(np.searchsorted(running, share * running[-1])), len(values) - 1)])


class _Scale:
    """Bar edges: one bar per integer for small ranges, a logarithmic scale for long-tailed sizes."""

    def __init__(self, edges: Floats, log: bool = False, whole: bool = False) -> None:
        self.edges, self.log, self.whole, self.bars = edges, log, whole, len(edges) - 1

    @classmethod
    def fitting(cls, values: Floats, counts: NDArray[np.int64], limits: Sequence[float]) -> "_Scale":
        """A scale for the central 99 % of the values, and for nearby bounds."""
        low, high = (quantile(values, counts, share) for share in (0.005, 0.995))
        if high >= 100 and values[0] >= 0 and high > 20 * max(quantile(values, counts, 0.05), 1.0):
            least = max(float(values[values > 0][0]), high / 1e6, 0.5)
            near = [limit for limit in limits if least / 100 <= limit <= high * 100]
            edges = np.geomspace(min([least, *near]) / 1.1, max([high, *near]) * 1.1, BARS)
            return cls(np.concatenate([[0.0], edges]) if values[0] < edges[0] else edges, log=True)
        low, high = (low, high) if low < high else (float(values[0]), float(values[-1]))
        span = high - low or max([abs(high) / 10, *(abs(limit) for limit in limits)]) or 1.0
        share = values[0] >= 0 and values[-1] <= 1
        near = [limit for limit in limits if share or low - 10 * span <= limit <= high + 10 * span]
        low, high = min([low, *near]), max([high, *near])
        whole = all((some == np.floor(some)).all() for some in (values, np.array(limits)))
        if whole and values[-1] >= 1 and high - low <= BARS:
            return cls(np.arange(np.floor(low), np.floor(high) + 2), whole=True)
        margin = (high - low) / 50 if high > low else span
        return cls(np.linspace(low if low == 0 else low - margin, high + margin, BARS + 1))

    def bar(self, values: Floats) -> NDArray[np.int64]:
        """Bar of each value; values beyond the scale are in the outermost ones."""
        return np.clip(np.searchsorted(self.edges, values, side="right") - 1, 0, self.bars - 1)

    def at(self, value: float) -> float:
        """Position of a value in bars; -1 or bars + 1 off the scale."""
        if not self.edges[0] <= value <= self.edges[-1]:
            return -1.0 if value < self.edges[0] else self.bars + 1.0
        return float(np.interp(value, self.edges, np.arange(self.bars + 1)))

    def ticks(self) -> tuple[tuple[float, float], ...]:
        """Round values for the axis."""
        low, high = float(self.edges[0]), float(self.edges[-1])
        if self.log:
            tens = [
                10.0**power for power in range(-6, 39) if self.edges[self.edges > 0][0] <= 10.0**power <= high
            ]
            tens = tens[:: 1 + len(tens) // 6]
            return tuple((self.at(ten), ten) for ten in ([0.0] if low == 0 else []) + tens)
        rough = (high - low) / 4
        power = 10.0 ** np.floor(np.log10(rough))
        step = power * min((unit for unit in (1, 2, 5, 10) if unit * power >= rough * 0.8), default=10)
        step = max(step, 1.0) if self.whole else step
        last = self.edges[-2] if self.whole else high
        rounds = np.arange(np.ceil(low / step - 1e-9), np.floor(last / step + 1e-9) + 1) * step
        half = 0.5 if self.whole else 0.0
        return tuple((self.at(value) + half, round(value, 9) + 0.0) for value in rounds.tolist())


def _thresholds(bound: Bound, scale: _Scale) -> list[Threshold]:
    drawn = []
    if bound.at_least is not None:
        drawn.append(Threshold(bound.reason, "at_least", bound.at_least, scale.at(bound.at_least)))
    if bound.at_most is not None:
        edge = (
            np.floor(bound.at_most) + 1 if scale.whole else bound.at_most
        )  # a whole number's bar is still inside
        drawn.append(Threshold(bound.reason, "at_most", bound.at_most, scale.at(float(edge))))
    return drawn
