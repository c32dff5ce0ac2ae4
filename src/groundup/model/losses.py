"""Chunked losses over a large vocabulary, which never hold all logits at once.

in:  hidden vectors, the head's matrix, target ids
out: a summed cross-entropy, or the log-probability of every target, both differentiable

Logits for a batch are by far the largest tensor of training (tokens x vocabulary), so they are made chunk by
chunk. The cross-entropy computes its gradient in the same pass, while a chunk's logits exist (as in Liger
Kernel, https://arxiv.org/abs/2410.10989), so nothing of that size is kept or made twice.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 2048
"""Positions per chunk of logits."""

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor, Tensor]]


def softcap(logits: Float[Tensor, "*shape"], cap: float) -> Float[Tensor, "*shape"]:
    """cap tanh(logits / cap), or the logits themselves where cap is 0 (Gemma 2, https://arxiv.org/abs/2408.00118)."""
    return cap * torch.tanh(logits / cap) if cap else logits


def cross_entropy(
    hidden: Float[Tensor, "positions width"],
    head_weight: Float[Tensor, "vocab width"],
    targets: Int[Tensor, " positions"],
    weights: Float[Tensor, " positions"],
    kernel: Kernel | None = None,
    cap: float = 0.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Sum over positions of weight * -log p(target), and the sum of the weights. In nats, fp32.

    kernel: `chunk_with_gradient`, perhaps compiled. cap: the model's `logit_softcap`.
    """
    total = weights.float().sum()
    if not torch.is_grad_enabled():
        return _loss_only(hidden, head_weight, targets, weights, cap), total
    kernel = kernel or chunk_with_gradient
    loss: Tensor = _CrossEntropy.apply(hidden, head_weight, targets, weights, kernel, cap)  # type: ignore[no-untyped-call]
    return loss, total


def chunk_with_gradient(
    hidden: Float[Tensor, "chunk width"],
    head: Float[Tensor, "vocab width"],
    targets: Int[Tensor, " chunk"],
    weights: Float[Tensor, " chunk"],
    cap: float = 0.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, "chunk width"], Float[Tensor, "vocab width"]]:
    """Loss of one chunk and its gradients: d loss / d logits = weight * (softmax - one_hot(target))."""
    logits = softcap((hidden @ head.T).float(), cap)
    log_norm = logits.logsumexp(dim=-1, keepdim=True)
    loss = ((log_norm - logits.gather(1, targets[:, None]))[:, 0] * weights).sum()
    # A comparison instead of a scatter: it fuses into one pass over the logits.
    is_target = torch.arange(head.shape[0], device=targets.device)[None] == targets[:, None]
    d_logits = ((logits - log_norm).exp() - is_target.float()) * weights[:, None]
    if cap:
        d_logits = d_logits * (1 - (logits / cap).square())
    d_logits = d_logits.to(hidden.dtype)
    return loss, d_logits @ head, d_logits.T @ hidden


class _CrossEntropy(torch.autograd.Function):
    """Computes the gradients with the loss; backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head_weight: Tensor,
        targets: Tensor,
        weights: Tensor,
        kernel: Kernel,
        cap: float,
    ) -> Tensor:
        head = head_weight.to(hidden.dtype)
        loss = torch.zeros((), device=hidden.device)
        d_hidden = torch.empty_like(hidden)
        d_head = torch.zeros(head.shape, device=hidden.device)
        for at in (slice(start, start + CHUNK) for start in range(0, hidden.shape[0], CHUNK)):
            part, d_hidden[at], d_part = kernel(hidden[at], head, targets[at], weights[at], cap)
            loss += part
            d_head += d_part
        ctx.save_for_backward(d_hidden, d_head.to(head_weight.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        d_hidden, d_head = ctx.saved_tensors
        return d_hidden * grads[0], d_head * grads[0], None, None, None, None


def _loss_only(hidden: Tensor, head_weight: Tensor, targets: Tensor, weights: Tensor, cap: float) -> Tensor:
    head = head_weight.to(hidden.dtype)
    loss = torch.zeros((), device=hidden.device)
    for at in (slice(start, start + CHUNK) for start in range(0, hidden.shape[0], CHUNK)):
        log_probs = _log_probs(hidden[at], head, targets[at], 1.0, cap)[0]
        loss = loss - (log_probs * weights[at]).sum()
    return loss


def token_log_probs(
    hidden: Float[Tensor, "batch time width"],
    head_weight: Float[Tensor, "vocab width"],
    targets: Int[Tensor, "batch time"],
    temperature: float = 1.0,
    cap: float = 0.0,
) -> Float[Tensor, "batch time"]:
    """log p(target) at every position under softmax(logits / temperature), fp32. cap: `logit_softcap`."""
    return log_probs_and_entropy(hidden, head_weight, targets, temperature, cap)[0]


def log_probs_and_entropy(
    hidden: Float[Tensor, "batch time width"],
    head_weight: Float[Tensor, "vocab width"],
    targets: Int[Tensor, "batch time"],
    temperature: float = 1.0,
    cap: float = 0.0,
) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
    """log p(target) and the entropy of the whole distribution at every position, in nats, fp32.

    With gradients on, a chunk's logits are computed a second time in backward instead of being kept.
    """
    head = head_weight.to(hidden.dtype)
    flat, flat_targets = hidden.flatten(0, 1), targets.flatten()
    parts = []
    for at in (slice(start, start + CHUNK) for start in range(0, flat.shape[0], CHUNK)):
        arguments = (flat[at], head, flat_targets[at], temperature, cap)
        if torch.is_grad_enabled():
            parts.append(checkpoint(_log_probs, *arguments, use_reentrant=False))
        else:
            parts.append(_log_probs(*arguments))
    log_probs, entropies = (torch.cat(column).view(targets.shape) for column in zip(*parts, strict=True))
    return log_probs, entropies


def _log_probs(
    hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, cap: float
) -> tuple[Tensor, Tensor]:
    logits = hidden @ head.T
    logits_fp32 = logits if logits.dtype == torch.float64 else logits.float()
    log_probs = (softcap(logits_fp32, cap) / temperature).log_softmax(dim=-1)
    entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
    return log_probs.gather(1, targets[:, None])[:, 0], entropy
