"""The mathematics of alignment: pure functions of tensors, each beside its paper.

in:  scores, log-probabilities, values, and a mask that is true where a token counts
out: losses, advantages, estimates; values outside the mask never affect them, not even NaN

Bradley & Terry 1952; Ouyang et al. 2022 (arXiv:2203.02155) for pairs; Schulman et al. 2016 (arXiv:1506.02438)
for GAE; Schulman et al. 2017 (arXiv:1707.06347) for clipping; Schulman 2020, "Approximating KL divergence".
All arithmetic is in fp32. Sums are divided by a `total` handed in, so that micro-batches add up to one step.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Clipped:
    """A clipped loss, and the fraction of tokens (divided by `total`) whose clip was active."""

    loss: Float[Tensor, ""]
    clipped: Float[Tensor, ""]


@dataclass(frozen=True)
class Advantages:
    """Advantage of each token, and the return that its value is trained towards."""

    advantages: Float[Tensor, "batch time"]
    returns: Float[Tensor, "batch time"]


def masked(mask: Bool[Tensor, "*shape"], x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """`x` in fp32 inside the mask, 0 outside, where values and gradients are dropped, NaN too."""
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device)).float()


def masked_mean(x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """The mean inside the mask; 0 when nothing is inside."""
    return masked(mask, x).sum() / mask.sum().clamp(min=1)


def bradley_terry(
    chosen: Float[Tensor, " pairs"],
    rejected: Float[Tensor, " pairs"],
    margin: float = 0.0,
) -> Float[Tensor, " pairs"]:
    """-log P(chosen beats rejected by `margin`) = -log sigmoid(chosen - rejected - margin), per pair."""
    return -F.logsigmoid(chosen.float() - rejected.float() - margin)


def token_rewards(
    scores: Float[Tensor, " batch"],
    log_ratios: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    kl_coef: float,
) -> Float[Tensor, "batch time"]:
    """Reward of each token: -kl_coef * log(policy / reference), and the answer's score on its last token.

    Ziegler et al. 2019 (arXiv:1909.08593), equation 2, with the penalty spread over the tokens.
    """
    rewards = -kl_coef * masked(mask, log_ratios)
    return rewards + scores.float()[:, None] * _last(mask)


def gae(
    rewards: Float[Tensor, "batch time"],
    values: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    gamma: float = 1.0,
    lam: float = 0.95,
) -> Advantages:
    """Generalised advantage estimation: A_t = sum_l (gamma lam)^l delta_{t+l}.

    delta_t = r_t + gamma V_{t+1} - V_t. An answer ends at its last masked token: the value after it is 0.
    Answers start at time 0, so the mask is true and then false along time.
    """
    rewards, values = masked(mask, rewards), masked(mask, values)
    following = F.pad(values[:, 1:], (0, 1))
    deltas = rewards + gamma * following - values
    running, advantages_reversed = torch.zeros_like(deltas[:, 0]), []
    for t in reversed(range(deltas.shape[1])):
        running = deltas[:, t] + gamma * lam * running
        advantages_reversed.append(running)
    advantages = masked(mask, torch.stack(advantages_reversed[::-1], dim=1))
    return Advantages(advantages, advantages + values)


def whiten(
    x: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], eps: float = 1e-8
) -> Float[Tensor, "batch time"]:
    """Mean 0 and variance 1 over the masked tokens, 0 elsewhere."""
    centred = masked(mask, masked(mask, x) - masked_mean(x, mask))
    return centred * torch.rsqrt(masked_mean(centred.square(), mask) + eps)


def scaled(
    x: Float[Tensor, "batch time"], mask: Bool[Tensor, "batch time"], eps: float = 1e-8
) -> Float[Tensor, "batch time"]:
    """Divided by the standard deviation over the masked tokens, 0 elsewhere; the mean moves with it.

    As rewards are whitened in the code of Ziegler et al. 2019 (lm-human-preferences, shift_mean=False).
    """
    inside = masked(mask, x)
    centred = masked(mask, inside - masked_mean(inside, mask))
    return inside * torch.rsqrt(masked_mean(centred.square(), mask) + eps)


def ppo_policy_loss(
    log_probs: Float[Tensor, "batch time"],
    old_log_probs: Float[Tensor, "batch time"],
    advantages: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    clip: float,
    total: float,
) -> Clipped:
    """-min(ratio A, clip(ratio, 1 - clip, 1 + clip) A), summed and divided by `total` tokens.

    Equation 7 of the PPO paper; ratio = pi / pi_old.
    """
    ratio = torch.exp(masked(mask, log_probs) - masked(mask, old_log_probs))
    advantages = masked(mask, advantages)
    unclipped_loss, clipped_loss = -ratio * advantages, -ratio.clamp(1 - clip, 1 + clip) * advantages
    return Clipped(
        masked(mask, torch.maximum(unclipped_loss, clipped_loss)).sum() / total,
        masked(mask, (clipped_loss > unclipped_loss).float()).sum() / total,
    )


def value_loss(
    values: Float[Tensor, "batch time"],
    old_values: Float[Tensor, "batch time"],
    returns: Float[Tensor, "batch time"],
    mask: Bool[Tensor, "batch time"],
    clip: float,
    total: float,
) -> Clipped:
    """1/2 max((V - R)^2, (V_old + clip(V - V_old) - R)^2), summed and divided by `total` tokens.

    The clipping isn't in the paper but in its authors' code (openai/baselines, ppo2); the half as there.
    """
    values, old_values, returns = masked(mask, values), masked(mask, old_values), masked(mask, returns)
    near = old_values + (values - old_values).clamp(-clip, clip)
    unclipped_loss, clipped_loss = (values - returns).square(), (near - returns).square()
    return Clipped(
        0.5 * torch.maximum(unclipped_loss, clipped_loss).sum() / total,
        masked(mask, (clipped_loss > unclipped_loss).float()).sum() / total,
    )


def kl_k1(log_ratios: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """KL(policy || reference) from samples of the policy: log r, r = policy / reference. Unbiased, can be below 0."""
    return log_ratios.float()


def kl_k3(log_ratios: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The same as 1/r - 1 + log r: unbiased too, never negative, and steadier where r is near 1."""
    log_ratios = log_ratios.float()
    return torch.expm1(-log_ratios) + log_ratios


def _last(mask: Bool[Tensor, "batch time"]) -> Bool[Tensor, "batch time"]:
    return mask & ~F.pad(mask[:, 1:], (0, 1))
