"""Advantages and losses of groups of responses to one prompt: pure functions, each beside its paper.

in:  rewards [prompts, group]; log-probabilities [responses, time] with a mask that is true on a response's tokens
out: advantages; a loss for each token; each token's weight in the step's loss

GRPO: Shao et al. 2024 (arXiv:2402.03300). Dr. GRPO: Liu et al. 2025 (arXiv:2503.20783). RLOO: Ahmadian et al. 2024
(arXiv:2402.14740). DAPO: Yu et al. 2025 (arXiv:2503.14476). GSPO: Zheng et al. 2025 (arXiv:2507.18071). CISPO: MiniMax
2025 (arXiv:2506.13585). Truncated importance sampling: Yao et al. 2025 (https://fengyao.notion.site/off-policy-rl).
A step's loss is the sum of loss x weight over all its tokens, so micro-batches and ranks add up to one step.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Normalisation = Literal["std", "none", "leave_one_out"]
Ratio = Literal["token", "sequence"]
Clipping = Literal["surrogate", "weight"]
Aggregation = Literal["response_mean", "token_mean", "constant"]
KlEstimator = Literal["k2", "k3", "weighted_k3"]


def group_advantages(
    rewards: Float[Tensor, "prompts group"], normalisation: Normalisation, eps: float = 1e-4
) -> Float[Tensor, "prompts group"]:
    """Rewards minus the mean of their group. A group of equal rewards has advantages of exactly 0.

    std: divided by the group's sample standard deviation + eps (GRPO). none: not divided (Dr. GRPO).
    leave_one_out: the baseline is the mean of the other responses (RLOO).
    """
    group = rewards.shape[1]
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    centred = torch.where(equal_groups(rewards)[:, None], torch.zeros_like(centred), centred)
    if normalisation == "std":
        return centred / (rewards.std(dim=1, keepdim=True) + eps)
    return centred * group / (group - 1) if normalisation == "leave_one_out" else centred


def equal_groups(rewards: Float[Tensor, "prompts group"]) -> Bool[Tensor, " prompts"]:
    """The groups whose rewards are all equal: no response of them has a gradient."""
    return (rewards == rewards[:, :1]).all(dim=1)


def log_ratios(
    log_probs: Float[Tensor, "responses time"],
    old_log_probs: Float[Tensor, "responses time"],
    mask: Bool[Tensor, "responses time"],
    ratio: Ratio,
) -> Float[Tensor, "responses time"]:
    """log(policy / old policy): of each token, or its mean over the response on every token (GSPO, equation 7)."""
    difference = torch.where(mask, log_probs - old_log_probs, torch.zeros_like(log_probs))
    if ratio == "token":
        return difference
    mean = difference.sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return mean[:, None] * mask


def clipped_surrogate(
    ratios: Float[Tensor, "responses time"],
    advantages: Float[Tensor, "responses time"],
    low: float,
    high: float,
) -> Float[Tensor, "responses time"]:
    """-min(ratio A, clip(ratio, 1 - low, 1 + high) A); high above low is DAPO's clip-higher."""
    return torch.maximum(-ratios * advantages, -ratios.clamp(1 - low, 1 + high) * advantages)


def clipped_weight(
    log_probs: Float[Tensor, "responses time"],
    ratios: Float[Tensor, "responses time"],
    advantages: Float[Tensor, "responses time"],
    low: float,
    high: float,
) -> Float[Tensor, "responses time"]:
    """-stop_gradient(clip(ratio, 1 - low, 1 + high)) A log pi: every token keeps a gradient (CISPO, equation 4)."""
    return -ratios.clamp(1 - low, 1 + high).detach() * advantages * log_probs


def kl_penalty(
    log_probs: Float[Tensor, "responses time"],
    reference_log_probs: Float[Tensor, "responses time"],
    ratios: Float[Tensor, "responses time"],
    estimator: KlEstimator,
) -> Float[Tensor, "responses time"]:
    """Per-token KL(policy || reference) for use in the loss.

    d = log pi - log pi_ref. k2 = d^2 / 2 and weighted_k3 = ratio k3 have the gradient of KL(policy || reference);
    k3 = e^-d - 1 + d, which GRPO's paper uses, has that of KL(reference || policy) (Tang & Munos 2025,
    arXiv:2506.09477).
    """
    difference = log_probs - reference_log_probs
    if estimator == "k2":
        return difference.square() / 2
    k3 = torch.expm1(-difference) + difference
    return k3 if estimator == "k3" else ratios * k3


def token_weights(
    mask: Bool[Tensor, "responses time"], aggregation: Aggregation, longest: int
) -> Float[Tensor, "responses time"]:
    """Each token's weight in the loss of a step, whose responses are all in `mask`; 0 outside the mask.

    response_mean: the mean over responses of the mean over tokens (GRPO). token_mean: the mean over all tokens (DAPO).
    constant: the sum divided by responses x longest (Dr. GRPO). Responses without a token in the mask (truncated ones
    that are filtered) are in no denominator.
    """
    tokens = mask.sum(dim=1, keepdim=True)
    responses = (tokens > 0).sum().clamp(min=1)
    inside = mask.float()
    if aggregation == "response_mean":
        return inside / tokens.clamp(min=1) / responses
    if aggregation == "token_mean":
        return inside / mask.sum().clamp(min=1)
    return inside / (responses * longest)


def sampler_weights(
    old_log_probs: Float[Tensor, "responses time"],
    sampled_log_probs: Float[Tensor, "responses time"],
    mask: Bool[Tensor, "responses time"],
    cap: float,
    ratio: Ratio = "token",
) -> Float[Tensor, "responses time"]:
    """min(trainer's probability / sampler's probability, cap): corrects the difference of the two implementations.

    ratio: of each token, or of whole responses (the product over their tokens).
    """
    difference = torch.where(mask, old_log_probs - sampled_log_probs, torch.zeros_like(old_log_probs))
    if ratio == "sequence":
        difference = difference.sum(dim=1, keepdim=True).expand_as(difference)
    return torch.exp(difference).clamp(max=cap) * mask


def overlong_penalty(
    lengths: Float[Tensor, " responses"], longest: int, buffer: int
) -> Float[Tensor, " responses"]:
    """0 up to longest - buffer tokens, then falling linearly to -1 at `longest` (DAPO, equation 13)."""
    return -((lengths - (longest - buffer)) / buffer).clamp(0, 1)
