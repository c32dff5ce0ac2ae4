"""Reference sampler for `infer/sampling.py`: inverse transform sampling over plain lists.

in:  logits in float64, sampling settings, one uniform number
out: the token, or None where rounding decides between two
"""

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.doctor import formulas
from groundup.infer.sampling import Sampling

NEAR = 1e-4
"""Distance to a threshold within which fp32 rounding may decide differently from float64."""


def sampled_token(logits: Float[Tensor, " vocab"], number: float, sampling: Sampling) -> int | None:
    """Invert the cumulative distribution, in id order, over the tokens that top-k and top-p keep."""
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
    """The top-k tokens, reduced to the smallest set with probability >= top_p; None near a threshold."""
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


def mismatch_share(ours: list[int], plain: list[int | None]) -> float:
    """The fraction of differing draws, among those that rounding can't decide."""
    sure = [(token, want) for token, want in zip(ours, plain, strict=True) if want is not None]
    assert 2 * len(sure) > len(ours), "most draws are near a threshold"
    return sum(token != want for token, want in sure) / len(sure)


def uniform_grid(count: int) -> Float[Tensor, " count"]:
    """`count` evenly spaced numbers in (0, 1)."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count
