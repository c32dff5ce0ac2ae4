"""Log-probabilities and values under tensor parallel: what losses of alignment need beside the cross-entropy.

in:  hidden vectors of all positions, the same on all ranks of the axis `tensor`; a head split by tokens
out: log p of every target, or values, the same on all ranks; gradients that add up over the ranks

The log-probabilities' gradient on a rank is the part of its own tokens' logits. A value head is not split: all ranks
compute the same values, and each rank's gradient is divided by their number.
"""

from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.model.decoder import Decoder
from groundup.model.losses import CHUNK, softcap
from groundup.model.value_head import ValueModel
from groundup.parallel.context import ParallelContext
from groundup.parallel.shard import local
from groundup.parallel.tensor_parallel import first_token, reduced


def split_heads(root: nn.Module, parallel: ParallelContext) -> None:
    """Compute a decoder's log-probabilities and a value model's values on the ranks of the axis `tensor`, if any."""
    if parallel.mesh is None or parallel.axis_size("tensor") == 1:
        return
    group = parallel.mesh.get_group("tensor")
    if isinstance(root, Decoder):
        root.token_log_probs = partial(split_token_log_probs, group)
    if isinstance(root, ValueModel):
        root.replicated = partial(divide_gradient, group.size())


def split_token_log_probs(
    group: dist.ProcessGroup,
    hidden: Float[Tensor, "batch time width"],
    head_weight: Tensor,
    targets: Int[Tensor, "batch time"],
    temperature: float = 1.0,
    cap: float = 0.0,
) -> Float[Tensor, "batch time"]:
    """`losses.token_log_probs` with the head split by tokens."""
    flat = _SplitLogProbs.apply(  # type: ignore[no-untyped-call]
        hidden.flatten(0, 1), local(head_weight), targets.flatten(), temperature, cap, group,
        first_token(head_weight, group),
    )  # fmt: skip
    return cast(Tensor, flat).view(targets.shape)


class _SplitLogProbs(torch.autograd.Function):
    """The logits are computed chunk by chunk, and again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, local_head: Tensor, targets: Tensor, temperature: float, cap: float,
        group: dist.ProcessGroup, first: int,
    ) -> Tensor:  # fmt: skip
        head, log_norms, log_probs = local_head.to(hidden.dtype), [], []
        tokens = torch.arange(first, first + head.shape[0], device=hidden.device)
        for start in range(0, hidden.shape[0], CHUNK):
            part = slice(start, start + CHUNK)
            logits = softcap((hidden[part] @ head.T).float(), cap) / temperature
            highest = reduced(logits.amax(dim=-1), "max", group)
            is_target = tokens[None] == targets[part, None]
            sums = torch.stack([(logits - highest[:, None]).exp().sum(-1), (logits * is_target).sum(-1)])
            exponentials, target_logits = reduced(sums, "sum", group)
            log_norms.append(highest + exponentials.log())
            log_probs.append(target_logits - log_norms[-1])
        ctx.save_for_backward(hidden, head, targets, torch.cat(log_norms))
        ctx.temperature, ctx.cap, ctx.tokens, ctx.dtype = temperature, cap, tokens, local_head.dtype
        return torch.cat(log_probs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, head, targets, log_norms = ctx.saved_tensors
        d_hidden = torch.empty_like(hidden)
        d_head = torch.zeros(head.shape, device=hidden.device)
        for start in range(0, hidden.shape[0], CHUNK):
            part = slice(start, start + CHUNK)
            logits = softcap((hidden[part] @ head.T).float(), ctx.cap)
            probabilities = (logits / ctx.temperature - log_norms[part, None]).exp()
            is_target = (ctx.tokens[None] == targets[part, None]).float()
            slope = (is_target - probabilities) * grads[0][part, None] / ctx.temperature
            if ctx.cap:
                slope = slope * (1 - (logits / ctx.cap).square())
            slope = slope.to(hidden.dtype)
            d_hidden[part] = slope @ head
            d_head += slope.T @ hidden[part]
        return d_hidden, d_head.to(ctx.dtype), None, None, None, None, None


def divide_gradient(ranks: int, values: Tensor) -> Tensor:
    """`values` themselves; their gradient is divided by `ranks`, all of which compute the same."""
    return cast(Tensor, _DivideGradient.apply(values, ranks))  # type: ignore[no-untyped-call]


class _DivideGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, ranks: int) -> Tensor:
        ctx.ranks = ranks
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] / ctx.ranks, None
