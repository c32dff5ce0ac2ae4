"""Means with intervals, so that a difference isn't taken for more than it is.

in:  one number per example
out: mean and 95 % bootstrap interval (Efron 1979; percentile method), a pure function of numbers and seed
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from groundup.core.rng import derive_seed


@dataclass(frozen=True)
class Interval:
    """A mean, and where it may lie."""

    mean: float
    low: float
    high: float

    @property
    def bounds(self) -> list[float]:
        """[low, high], as manifests spell it."""
        return [self.low, self.high]


def bootstrap(values: Sequence[float], seed: int = 0, resamples: int = 2000, level: float = 0.95) -> Interval:
    """Interval of the mean. Raises ValueError where there is nothing to take a mean of."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size == 0:
        raise ValueError("an interval needs at least one number")
    return _interval(numbers, np.ones_like(numbers), seed, resamples, level)


def bootstrap_ratio(
    numerators: Sequence[float], denominators: Sequence[float], seed: int = 0, resamples: int = 2000
) -> Interval:
    """Interval of sum(numerators) / sum(denominators), resampling pairs, e.g. nats and bytes of documents."""
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if above.size == 0 or below.sum() <= 0:
        raise ValueError("a ratio needs at least one pair, and a denominator above 0")
    return _interval(above, below, seed, resamples, 0.95)


def paired_difference(after: Sequence[float], before: Sequence[float], seed: int = 0) -> Interval:
    """Interval of the mean of after - before, example by example."""
    if len(after) != len(before):
        raise ValueError(f"{len(after)} values after and {len(before)} before: pairs are needed")
    return bootstrap(np.subtract(after, before).tolist(), seed)


def _interval(above: np.ndarray, below: np.ndarray, seed: int, resamples: int, level: float) -> Interval:
    generator = np.random.default_rng(derive_seed(seed, "bootstrap", above.size))
    means = np.empty(resamples)
    for index in range(resamples):
        drawn = generator.integers(0, above.size, above.size)
        means[index] = above[drawn].sum() / max(below[drawn].sum(), 1e-12)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(above.sum() / below.sum()), float(low), float(high))
