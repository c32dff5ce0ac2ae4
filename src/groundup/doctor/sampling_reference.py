"""How a token is drawn, step by step over plain lists: the reference for `infer/sampling.py`.

in:  a distribution in float64, how to sample, one uniform number
out: the token, or None where rounding decides between two
"""

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.doctor import formulas
from groundup.infer.sampling import Sampling

NEAR = 1e-4
"""Nearer than this to a border, the rounding of fp32 may decide otherwise than float64."""


def drawn(logits: Float[Tensor, " vocab"], number: float, sampling: Sampling) -> int | None:
    """Invert the cumulative distribution, in the order of ids, over what top-k and top-p keep."""
    if sampling.temperature == 0:
        best = logits.topk(2)
        return int(best.indices[0]) if best.values[0] - best.values[1] > NEAR else None
    probabilities = formulas.log_softmax(logits, sampling.temperature).exp().tolist()
    kept = _kept(probabilities, sampling)
    if kept is None:
        return None
    wanted, below = number * sum(probabilities[token] for token in kept), 0.0
    for token in sorted(kept):
        if abs(wanted - below) < NEAR and below > 0:
            return None
        below += probabilities[token]
        if wanted < below - NEAR:
            return token
    return None


def _kept(probabilities: list[float], sampling: Sampling) -> list[int] | None:
    """The likeliest tokens: at most top-k, and of those as few as hold top-p; None near a border."""
    ordered = sorted((i for i, p in enumerate(probabilities) if p > 0), key=lambda i: -probabilities[i])
    if sampling.top_k:
        ordered = ordered[: sampling.top_k]
    whole, mass, kept = sum(probabilities[token] for token in ordered), 0.0, []
    for token in ordered:
        if sampling.top_p < 1 and abs(mass - sampling.top_p) < NEAR:
            return None
        if mass >= sampling.top_p:
            break
        kept.append(token)
        mass += probabilities[token] / whole
    return kept


def agreed(ours: list[int], plain: list[int | None]) -> float:
    """The share of draws that differ, among those that rounding can't decide."""
    sure = [(token, want) for token, want in zip(ours, plain, strict=True) if want is not None]
    assert 2 * len(sure) > len(ours), "nearly every draw lies on a border"
    return sum(token != want for token, want in sure) / len(sure)


def numbers(count: int) -> Float[Tensor, " count"]:
    """Evenly spread over [0, 1), both ends nearly touched."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count
