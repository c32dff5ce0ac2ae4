"""Reference losses, estimators and AdamW: the papers' formulas in float64, token by token.

in:  the arguments of the functions of `align/objectives.py` and `model/losses.py`
out: the same results; no code under test is used

Responses are passed with their lengths, so tokens past a response's end are never read. Everything is differentiable,
so the gradients are references too.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

Lengths = Sequence[int]


def tokens(lengths: Lengths) -> list[tuple[int, int]]:
    """(row, time) of every token of responses of these lengths."""
    return [(row, t) for row, length in enumerate(lengths) for t in range(length)]


def mean(x: Float[Tensor, "batch time"], lengths: Lengths) -> Float[Tensor, ""]:
    """The mean over the responses' tokens."""
    places = tokens(lengths)
    return torch.stack([x[place] for place in places]).sum() / len(places)


def bradley_terry(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"], margin: float
) -> Float[Tensor, " pairs"]:
    """-log P(chosen wins), P = e^(chosen - margin) / (e^(chosen - margin) + e^rejected). Bradley & Terry 1952."""
    wins = torch.exp(chosen - margin) / (torch.exp(chosen - margin) + torch.exp(rejected))
    return -torch.log(wins)


def token_rewards(
    scores: Float[Tensor, " batch"], log_ratios: Float[Tensor, "batch time"], lengths: Lengths, kl_coef: float
) -> Float[Tensor, "batch time"]:
    """-kl_coef log(policy / reference) on every token, plus the response's score on the last (arXiv:1909.08593)."""
    rewards = torch.zeros_like(log_ratios)
    for row, t in tokens(lengths):
        rewards[row, t] = -kl_coef * log_ratios[row, t] + (scores[row] if t == lengths[row] - 1 else 0.0)
    return rewards


def gae(
    rewards: Float[Tensor, "batch time"],
    values: Float[Tensor, "batch time"],
    lengths: Lengths,
    gamma: float,
    lam: float,
) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
    """Advantages and returns: A_t = sum over l of (gamma lam)^l delta_(t+l) (arXiv:1506.02438, equation 16).

    delta_t = r_t + gamma V_(t+1) - V_t, and V = 0 after the end.
    """
    advantages, returns = torch.zeros_like(rewards), torch.zeros_like(rewards)
    for row, t in tokens(lengths):
        for ahead in range(t, lengths[row]):
            after = values[row, ahead + 1] if ahead + 1 < lengths[row] else 0.0
            residual = rewards[row, ahead] + gamma * after - values[row, ahead]
            advantages[row, t] = advantages[row, t] + (gamma * lam) ** (ahead - t) * residual
        returns[row, t] = advantages[row, t] + values[row, t]
    return advantages, returns


def whiten(x: Float[Tensor, "batch time"], lengths: Lengths, eps: float) -> Float[Tensor, "batch time"]:
    """(x - mean) / sqrt(variance + eps) on the responses' tokens."""
    centre = mean(x, lengths)
    spread = mean((x - centre) ** 2, lengths)
    whitened = torch.zeros_like(x)
    for place in tokens(lengths):
        whitened[place] = (x[place] - centre) / torch.sqrt(spread + eps)
    return whitened


def scaled(x: Float[Tensor, "batch time"], lengths: Lengths, eps: float) -> Float[Tensor, "batch time"]:
    """x / sqrt(variance + eps) on the responses' tokens."""
    spread = mean((x - mean(x, lengths)) ** 2, lengths)
    divided = torch.zeros_like(x)
    for place in tokens(lengths):
        divided[place] = x[place] / torch.sqrt(spread + eps)
    return divided


def ppo(
    log_probs: Float[Tensor, "batch time"],
    old_log_probs: Float[Tensor, "batch time"],
    advantages: Float[Tensor, "batch time"],
    lengths: Lengths,
    clip: float,
    total: float,
) -> tuple[Float[Tensor, ""], float]:
    """-sum of min(r A, clip(r, 1 - clip, 1 + clip) A) / total (arXiv:1707.06347, equation 7), and the clipped fraction.

    The clip by cases: it is active where the ratio has already moved past the clip range in the advantage's direction.
    """
    loss, clipped = log_probs.new_zeros(()), 0
    for place in tokens(lengths):
        ratio, advantage = torch.exp(log_probs[place] - old_log_probs[place]), advantages[place]
        if advantage > 0 and ratio > 1 + clip:
            gain, clipped = (1 + clip) * advantage, clipped + 1
        elif advantage < 0 and ratio < 1 - clip:
            gain, clipped = (1 - clip) * advantage, clipped + 1
        else:
            gain = ratio * advantage
        loss = loss - gain
    return loss / total, clipped / total


def value_loss(
    values: Float[Tensor, "batch time"],
    old_values: Float[Tensor, "batch time"],
    returns: Float[Tensor, "batch time"],
    lengths: Lengths,
    clip: float,
    total: float,
) -> tuple[Float[Tensor, ""], float]:
    """1/2 max((V - R)^2, (V_near - R)^2) / total, V_near within `clip` of the old value; the clipped fraction."""
    loss, clipped = values.new_zeros(()), 0
    for place in tokens(lengths):
        low, high = old_values[place] - clip, old_values[place] + clip
        near = low if values[place] < low else high if values[place] > high else values[place]
        free, held = (values[place] - returns[place]) ** 2, (near - returns[place]) ** 2
        loss = loss + 0.5 * (held if held > free else free)
        clipped += bool(held > free)
    return loss / total, clipped / total


def log_softmax(
    logits: Float[Tensor, "*axes vocab"], temperature: float = 1.0
) -> Float[Tensor, "*axes vocab"]:
    """log of e^(l_i / T) / sum of e^(l_j / T)."""
    powers = torch.exp(logits / temperature)
    return torch.log(powers / powers.sum(dim=-1, keepdim=True))


def cross_entropy(
    logits: Float[Tensor, "positions vocab"],
    targets: Int[Tensor, " positions"],
    weights: Float[Tensor, " positions"],
) -> Float[Tensor, ""]:
    """Sum of weight * -log p(target)."""
    chosen = torch.nn.functional.one_hot(targets, logits.shape[-1]).to(logits.dtype)
    return -(log_softmax(logits) * chosen).sum(dim=-1).mul(weights).sum()


def entropy(logits: Float[Tensor, "*axes vocab"], temperature: float) -> Float[Tensor, "*axes"]:
    """-sum of p log p."""
    log_p = log_softmax(logits, temperature)
    return -(torch.exp(log_p) * log_p).sum(dim=-1)


def adamw(
    weight: Float[Tensor, "*shape"],
    gradients: Sequence[Float[Tensor, "*shape"]],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    decay: float,
) -> Float[Tensor, "*shape"]:
    """The weight after a step with each gradient (arXiv:1711.05101, algorithm 2, constant rate)."""
    first = second = torch.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        unbiased = first / (1 - betas[0] ** step), second / (1 - betas[1] ** step)
        weight = weight - lr * (unbiased[0] / (torch.sqrt(unbiased[1]) + eps) + decay * weight)
    return weight
