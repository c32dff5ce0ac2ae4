"""Losses of reward models on rankings: pure functions of the scores of all responses to one prompt.

in:  scores of responses, the pairs of a ranking or its ranks
out: one loss for each pair, or one for each ranking

Bradley & Terry 1952; pairs of one ranking as in Ouyang et al. 2022 (arXiv:2203.02155), equation 1; margins as in
Touvron et al. 2023 (arXiv:2307.09288), equation 2; centred scores as in Eisenstein et al. 2023 (arXiv:2312.09244);
Plackett 1975, Luce 1959 for whole orders.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def soft_bradley_terry(
    better: Float[Tensor, " pairs"],
    worse: Float[Tensor, " pairs"],
    target: Float[Tensor, " pairs"],
    margin: Float[Tensor, " pairs"],
) -> Float[Tensor, " pairs"]:
    """Cross-entropy of P(better beats worse by `margin`) with `target`: 1 for a preference, 1/2 for a tie."""
    difference = better.float() - worse.float() - margin
    return -target * F.logsigmoid(difference) - (1 - target) * F.logsigmoid(-difference)


def centring(better: Float[Tensor, " pairs"], worse: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """(r_better + r_worse)^2: its minimum has scores of mean 0, which differences alone leave open."""
    return (better.float() + worse.float()).square()


def plackett_luce(scores: Float[Tensor, " responses"], ranks: Int[Tensor, " responses"]) -> Float[Tensor, ""]:
    """-sum_k log P(response k is chosen among itself and all that are ranked below it).

    Without ties that is the probability of the order. Tied responses are not compared with one another.
    """
    scores = scores.float()
    below = (ranks[None, :] > ranks[:, None]) | torch.eye(len(ranks), dtype=torch.bool, device=ranks.device)
    return (torch.logsumexp(scores[None, :].masked_fill(~below, -torch.inf), dim=1) - scores).sum()
