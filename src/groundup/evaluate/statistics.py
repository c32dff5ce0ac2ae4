"""Means with bootstrap confidence intervals, clustered where items share a source.

in:  one number per item, and optionally the cluster (e.g. the document) that each item comes from
out: mean and 95 % interval, a pure function of numbers, clusters and seed

Items of one document are alike, so resampling items as if they were independent gives intervals that are too narrow:
whole clusters are resampled instead (Cameron, Gelbach, Miller 2008, https://doi.org/10.1162/rest.90.3.414). The
percentiles are expanded for few clusters (Hesterberg 2015, https://doi.org/10.1080/00031305.2015.1089789, section
3.2): without it, 20 clusters cover 95 % about 90 % of the time.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from groundup.core.rng import derive_seed


@dataclass(frozen=True)
class Interval:
    """A mean and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float

    @property
    def bounds(self) -> list[float]:
        """[low, high], as written to manifests."""
        return [self.low, self.high]


def bootstrap(
    values: Sequence[float],
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
) -> Interval:
    """Interval of the mean. clusters: each item's cluster; None = every item is its own.

    Raises ValueError for an empty sequence, or where values and clusters differ in number.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size == 0:
        raise ValueError("an interval needs at least one number")
    return _interval(numbers, np.ones_like(numbers), seed, resamples, level, clusters)


def bootstrap_ratio(
    numerators: Sequence[float], denominators: Sequence[float], seed: int = 0, resamples: int = 2000
) -> Interval:
    """Interval of sum(numerators) / sum(denominators), resampling pairs, e.g. nats and bytes of documents."""
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if above.size == 0 or below.sum() <= 0:
        raise ValueError("a ratio needs at least one pair, and a denominator above 0")
    return _interval(above, below, seed, resamples, 0.95, None)


def paired_difference(
    after: Sequence[float],
    before: Sequence[float],
    seed: int = 0,
    clusters: Sequence[Hashable] | None = None,
) -> Interval:
    """Interval of the mean of after - before, item by item. clusters: as in `bootstrap`."""
    if len(after) != len(before):
        raise ValueError(f"{len(after)} values after and {len(before)} before: pairs are needed")
    return bootstrap(np.subtract(after, before).tolist(), seed, clusters=clusters)


def _interval(
    above: np.ndarray,
    below: np.ndarray,
    seed: int,
    resamples: int,
    level: float,
    clusters: Sequence[Hashable] | None,
) -> Interval:
    mean = float(above.sum() / below.sum())
    if clusters is not None:
        above, below = _sum_clusters(above, below, clusters)
    count = above.size
    generator = np.random.default_rng(derive_seed(seed, "bootstrap", count))
    means = np.empty(resamples)
    for index in range(resamples):
        drawn = generator.integers(0, count, count)
        means[index] = above[drawn].sum() / max(below[drawn].sum(), 1e-12)
    tail = _expanded_tail((1 - level) / 2, count)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high))


def _sum_clusters(
    above: np.ndarray, below: np.ndarray, clusters: Sequence[Hashable]
) -> tuple[np.ndarray, np.ndarray]:
    """Numerators and denominators summed by cluster, in order of first appearance."""
    if len(clusters) != above.size:
        raise ValueError(f"{above.size} values and {len(clusters)} clusters: each value needs its cluster")
    index = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    places = np.array([index[cluster] for cluster in clusters])
    return np.bincount(places, above), np.bincount(places, below)


def _expanded_tail(tail: float, count: int) -> float:
    """The percentile that takes the place of `tail` for `count` independent clusters (Hesterberg's expansion)."""
    if count < 2:
        return tail
    return float(norm.cdf(-((count / (count - 1)) ** 0.5) * t.ppf(1 - tail, count - 1)))
