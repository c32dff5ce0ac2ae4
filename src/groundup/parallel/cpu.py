"""Faster ways on a CPU for what `model/` writes plainly: attention by blocks, several projections as one product.

in:  the same tensors as `attend_fused` and `one_by_one`
out: the same results; compiled, in about half the time
"""

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from groundup.model.attention import AttentionKernel, document_mask
from groundup.model.layers import Linear, one_by_one


def attend_blocks(
    q: Float[Tensor, "batch heads time dim"],
    k: Float[Tensor, "batch kv_heads keys dim"],
    v: Float[Tensor, "batch kv_heads keys dim"],
    mask: Bool[Tensor, "rows 1 time keys"],
    blocks: int = 8,
) -> Float[Tensor, "batch heads time dim"]:
    """Causal attention as plain products over `blocks` blocks of queries; time must equal keys.

    A block of queries looks only at keys up to its own end, so 7/16 of the square is never computed. The softmax is
    in fp32; its weights are kept as they come out of the exponential, in v's dtype, and divided by their sum after
    the product with v, where there are fewer numbers (as in FlashAttention-2, https://arxiv.org/abs/2307.08691).
    """
    return cast(Tensor, _Blocks.apply(q, k, v, mask, blocks))  # type: ignore[no-untyped-call]


class _Blocks(torch.autograd.Function):
    """With weights w = exp(s - max), their sums z and p = w / z: o = p v. Given the gradient g of o:

    dv = p^T g;  ds = p (g v^T - rowsum(g o));  dq = ds k;  dk = ds^T q, the last two times 1/sqrt(dim).
    Written by hand, since autograd would look at the mask again and add up dk and dv in the wrong layout.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, blocks: int) -> Tensor:
        kv_heads, scale = k.shape[1], q.shape[-1] ** -0.5
        outs, kept = [], []
        for start, end in _borders(q.shape[2], blocks):
            rows = _sharing(q[:, :, start:end], kv_heads)
            scores = (rows @ k[:, :, :end].transpose(-1, -2)).float()
            shape = (*q.shape[:2], end - start, end)
            scores = (
                scores.view(shape).masked_fill(~mask[:, :, start:end, :end], float("-inf")).view_as(scores)
            )
            weights = ((scores - scores.amax(dim=-1, keepdim=True)) * scale).exp()
            sums = weights.sum(dim=-1, keepdim=True)
            weights = weights.to(v.dtype)
            out = ((weights @ v[:, :, :end]).float() / sums).to(v.dtype)
            outs.append(out.view(*q.shape[:2], end - start, -1))
            kept += [weights, sums]
        together = torch.cat(outs, dim=2)
        ctx.blocks = blocks
        ctx.save_for_backward(q, k, v, together, *kept)
        return together

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, out, *kept = ctx.saved_tensors
        (grad,), kv_heads, scale = grads, k.shape[1], q.shape[-1] ** -0.5
        sums_of_rows = (grad.float() * out.float()).sum(dim=-1, keepdim=True)
        d_q, d_k, d_v = [], [], []
        borders = _borders(q.shape[2], ctx.blocks)
        for (start, end), weights, sums in zip(borders, kept[::2], kept[1::2], strict=True):
            rows = _sharing(q[:, :, start:end], kv_heads)
            # Divided by the weights' sums here, where there are fewer numbers: then w stands where p would.
            g = (_sharing(grad[:, :, start:end], kv_heads).float() / sums).to(grad.dtype)
            d_v.append(weights.transpose(-1, -2) @ g)
            pull = (g @ v[:, :, :end].transpose(-1, -2)).float()
            mean = _sharing(sums_of_rows[:, :, start:end], kv_heads) / sums
            d_scores = (weights.float() * (pull - mean) * scale).to(q.dtype)
            d_q.append((d_scores @ k[:, :, :end]).view(*q.shape[:2], end - start, -1))
            d_k.append(d_scores.transpose(-1, -2) @ rows)
        return torch.cat(d_q, dim=2), _sum_of(d_k, borders), _sum_of(d_v, borders), None, None


def _borders(time: int, blocks: int) -> list[tuple[int, int]]:
    size = math.ceil(time / blocks)
    return [(start, min(start + size, time)) for start in range(0, time, size)]


def _sharing(
    x: Float[Tensor, "batch heads time dim"], kv_heads: int
) -> Float[Tensor, "batch kv_heads rows dim"]:
    """Query heads that share a key/value head become more rows of one product: nothing is repeated."""
    return x.reshape(x.shape[0], kv_heads, -1, x.shape[-1])


def _sum_of(parts: list[Tensor], borders: list[tuple[int, int]]) -> Float[Tensor, "batch kv_heads keys dim"]:
    """Part i reaches from key 0 to the end of block i; added up stretch by stretch, in fp32."""
    stretches = []
    for index, (start, end) in enumerate(borders):
        over = [part[:, :, start:end].float() for part in parts[index:]]
        stretches.append(sum(over[1:], start=over[0]).to(parts[0].dtype))
    return torch.cat(stretches, dim=2)


BLOCKS = AttentionKernel("blocks", document_mask, attend_blocks)


def stacked(x: Tensor, *linears: nn.Module) -> tuple[Tensor, ...]:
    """As `one_by_one`, with the weights stacked so that several products become one, where all are plain."""
    if any(type(linear) is not Linear or linear.bias is not None for linear in linears):
        return one_by_one(x, *linears)
    weights = [cast(Tensor, linear.weight) for linear in linears]
    together = F.linear(x, torch.cat(weights).to(x.dtype))
    return torch.split(together, [weight.shape[0] for weight in weights], dim=-1)
