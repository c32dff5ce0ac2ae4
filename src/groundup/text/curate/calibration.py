"""Calibration of classifier scores (Platt 1999; Guo et al. 2017, arXiv:1706.04599).

in:  scores of held-out documents, and their labels
out: ranking quality, calibration error, and a map from scores to probabilities
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Truth = NDArray[np.bool_]
Scores = NDArray[np.float64]

QUANTILES = np.linspace(0, 1, 1001)
_CLIP = 1e-7


@dataclass(frozen=True)
class Calibration:
    """Logistic map of scores to probabilities, with the score quantiles of the negative class."""

    slope: float = 1.0
    intercept: float = 0.0
    negative: tuple[float, ...] = ()
    """Calibrated scores of held-out negative documents, at `QUANTILES`."""
    negatives: int = 0
    """Number of held-out negative documents."""

    def __call__(self, scores: Scores) -> Scores:
        """[documents]: probability of the positive class. Monotonic in `scores`."""
        return _logistic(self.slope * _logit(scores) + self.intercept)

    def at_share(self, share: float) -> float:
        """Score that `share` of the negative documents exceed."""
        return float(np.interp(1 - share, QUANTILES, self.negative))

    def as_json(self) -> dict[str, Any]:
        """Keyword arguments of `Calibration`, as plain JSON."""
        return asdict(self)


def calibrate(truth: Truth, scores: Scores) -> Calibration:
    """Platt scaling: slope and intercept of maximum likelihood, with Platt's smoothed targets."""
    from scipy.optimize import minimize

    positive = int(truth.sum())
    target = np.where(truth, (positive + 1) / (positive + 2), 1 / (len(truth) - positive + 2))
    logits = _logit(scores)

    def loss(weights: Scores) -> float:
        z = weights[0] * logits + weights[1]
        return float(np.mean(np.logaddexp(0, z) - target * z))

    # The slope stays above 0: whatever the scores are worth, their order is kept.
    fit = minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=[(1e-3, None), (None, None)])
    slope, intercept = (float(value) for value in fit.x)
    scaled = Calibration(slope, intercept)
    negative = np.quantile(scaled(scores[~truth]), QUANTILES)
    return Calibration(slope, intercept, tuple(negative.tolist()), int((~truth).sum()))


def roc_auc(truth: Truth, scores: Scores) -> float:
    """Probability that a positive document scores higher than a negative one; ties count half."""
    from scipy.stats import rankdata

    positive = int(truth.sum())
    ranks = rankdata(scores)[truth].sum() - positive * (positive + 1) / 2
    return float(ranks / (positive * (len(truth) - positive)))


def average_precision(truth: Truth, scores: Scores) -> float:
    """Precision averaged over the recall gained at each threshold; equal scores share a threshold."""
    order = np.argsort(-scores, kind="stable")
    hits, ends = np.cumsum(truth[order]), np.append(np.diff(scores[order]) != 0, True)
    true_positives, at = hits[ends], np.flatnonzero(ends) + 1
    return float(np.sum(np.diff(true_positives, prepend=0) * true_positives / at) / hits[-1])


def reliability(truth: Truth, scores: Scores, bins: int = 10) -> list[dict[str, float]]:
    """Per non-empty bin of equal width: documents, mean score, and share of positives."""
    bin_of = np.minimum((scores * bins).astype(np.int64), bins - 1)
    return [
        {
            "from": number / bins,
            "documents": int((inside := bin_of == number).sum()),
            "score": float(scores[inside].mean()),
            "positive": float(truth[inside].mean()),
        }
        for number in np.unique(bin_of).tolist()
    ]


def calibration_error(truth: Truth, scores: Scores, bins: int = 10) -> float:
    """Expected calibration error: difference of score and positive share per bin, weighted by documents."""
    rows = reliability(truth, scores, bins)
    return sum(row["documents"] * abs(row["score"] - row["positive"]) for row in rows) / len(truth)


def at_threshold(truth: Truth, scores: Scores, threshold: float) -> dict[str, float]:
    """Accuracy, precision, recall and F1 where scores of at least `threshold` are predicted positive."""
    predicted = scores >= threshold
    hits = int((predicted & truth).sum())
    wrong = int(predicted.sum()) - hits + int(truth.sum()) - hits
    return {
        "accuracy": float((predicted == truth).mean()),
        "precision": hits / max(1, int(predicted.sum())),
        "recall": hits / max(1, int(truth.sum())),
        "f1": 2 * hits / max(1, 2 * hits + wrong),
    }


def _logit(scores: Scores) -> Scores:
    clipped = np.clip(scores, _CLIP, 1 - _CLIP)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _logistic(values: Scores) -> Scores:
    return np.asarray(1 / (1 + np.exp(-values)))
