"""Accuracy of a reward model on held-out rankings: by source, beside chance and the length of the responses.

in:  held-out rankings, a score for each of their responses
out: accuracy with its interval; accuracy by source and by which response is longer; the accuracy of length alone;
     calibration; a warning where the model is not better than chance, or than length

A pair counts as right when the better response has the higher score. Tied responses are left out. Intervals resample
prompts, since the pairs of one prompt are not independent.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.align.ranking_batches import RenderedRanking
from groundup.core.stage import Metrics
from groundup.evaluate.statistics import bootstrap

BINS = 5
"""Bins of the calibration curve, between certainties of 50 % and 100 %."""


@dataclass(frozen=True)
class ScoredPair:
    """A held-out pair: the better response's score minus the worse one's, and the difference of their lengths."""

    kind: str
    group: str
    difference: float
    length_difference: int

    @property
    def right(self) -> float:
        """1 if the better response has the higher score."""
        return float(self.difference > 0)


def scored_pairs(rankings: Sequence[RenderedRanking], scores: Sequence[Sequence[float]]) -> list[ScoredPair]:
    """Every pair with a preference."""
    return [
        ScoredPair(
            ranking.kind, ranking.group, values[i] - values[j], ranking.lengths[i] - ranking.lengths[j]
        )
        for ranking, values in zip(rankings, scores, strict=True)
        for i, j, target in ranking.pairs
        if target == 1
    ]


def length_only_accuracy(train: Sequence[RenderedRanking], held_out: Sequence[ScoredPair]) -> float:
    """Accuracy of preferring the longer response, or the shorter one: whichever is right more often in training."""
    differences = [
        d for d in (pair.length_difference for pair in scored_pairs(train, _no_scores(train))) if d
    ]
    longer = sum(d > 0 for d in differences) * 2 >= len(differences)
    guesses = [
        0.5 if not pair.length_difference else float((pair.length_difference > 0) == longer)
        for pair in held_out
    ]
    return sum(guesses) / len(guesses)


def reward_report(
    train: Sequence[RenderedRanking], held_out: Sequence[ScoredPair], seed: int, warn: Callable[[str], None]
) -> Metrics:
    """The metrics; `warn` is called with one line where the model has learned nothing that counts."""
    interval = bootstrap([pair.right for pair in held_out], seed, clusters=[pair.group for pair in held_out])
    length_only = length_only_accuracy(train, held_out)
    if interval.low <= 0.5:
        warn(
            f"the reward model is near chance: accuracy {interval.mean:.3f}, 95 % interval {interval.low:.3f} to "
            f"{interval.high:.3f} on {len(held_out)} held-out pairs. PPO on it would train on noise"
        )
    elif interval.low <= length_only:
        warn(
            f"the reward model is not clearly better than the length of a response: accuracy {interval.mean:.3f} "
            f"({interval.low:.3f} to {interval.high:.3f}), length alone {length_only:.3f}"
        )
    return {
        "accuracy": interval.mean,
        "accuracy_interval": interval.bounds,
        "accuracy_chance": 0.5,
        "accuracy_length_only": length_only,
        "accuracy_by_kind": _by(held_out, lambda pair: pair.kind),
        "accuracy_by_length": _by(held_out, _longer),
        "calibration": calibration(held_out),
    }


def calibration(pairs: Sequence[ScoredPair]) -> list[dict[str, float]]:
    """For each bin of certainty sigmoid(|difference|): mean certainty, accuracy, pairs."""
    bins: list[list[tuple[float, float]]] = [[] for _ in range(BINS)]
    for pair in pairs:
        certainty = 1 / (1 + math.exp(-min(abs(pair.difference), 700.0)))
        bins[min(BINS - 1, int((certainty - 0.5) * 2 * BINS))].append((certainty, pair.right))
    return [
        {
            "certainty": sum(certainty for certainty, _ in inside) / len(inside),
            "accuracy": sum(right for _, right in inside) / len(inside),
            "pairs": len(inside),
        }
        for inside in bins
        if inside
    ]


def _by(pairs: Sequence[ScoredPair], name: Callable[[ScoredPair], str]) -> dict[str, float]:
    groups: dict[str, list[float]] = {}
    for pair in pairs:
        groups.setdefault(name(pair), []).append(pair.right)
    return {key: sum(values) / len(values) for key, values in groups.items()}


def _longer(pair: ScoredPair) -> str:
    if not pair.length_difference:
        return "equal"
    return "better_is_longer" if pair.length_difference > 0 else "better_is_shorter"


def _no_scores(rankings: Sequence[RenderedRanking]) -> list[list[Any]]:
    return [[0.0] * len(ranking.ids) for ranking in rankings]
