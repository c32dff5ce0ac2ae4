"""CPU kernels: attention over blocks of queries, and stacked projections; compiled, twice as fast as the plain ones.

in:  the same tensors as `attend_fused` and `one_by_one`
out: the same results; compiled, in about half the time
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.model.attention import AttentionKernel, document_mask
from groundup.model.linear import PLAIN, Linear, LinearMap

MIN_BLOCK, MAX_BLOCKS = 128, 8
"""Queries of a block at least, and blocks at most: smaller products are slower than what they save."""


def document_mask_bf16(
    segments: Int[Tensor, "batch time"], window: int = 0
) -> Float[Tensor, "batch 1 time time"]:
    """`document_mask` as ones and zeros: compiled loops take these many at a time, and bools one by one."""
    return document_mask(segments, window).to(torch.bfloat16)


def attend_blocks(
    q: Float[Tensor, "batch heads time dim"],
    k: Float[Tensor, "batch kv_heads keys dim"],
    v: Float[Tensor, "batch kv_heads keys dim"],
    mask: Float[Tensor, "rows 1 time keys"],
    blocks: int = 0,
) -> Float[Tensor, "batch heads time dim"]:
    """Causal attention as plain products over blocks of queries; time must equal keys.

    seen: above 0 where a query may see a key. blocks: how many; 0 = as many as MIN_BLOCK and MAX_BLOCKS allow.
    A block of queries looks only at keys up to its own end, so with 8 of them 7/16 of the square is never computed.
    The softmax is in fp32; its weights are kept as they come out of the exponential, in v's dtype, and divided by
    their sum after the product with v, where there are fewer numbers (as in FlashAttention-2,
    https://arxiv.org/abs/2307.08691).
    """
    blocks = blocks or min(max(q.shape[2] // MIN_BLOCK, 1), MAX_BLOCKS)
    return cast(Tensor, _Blocks.apply(q, k, v, mask, blocks))  # type: ignore[no-untyped-call]


class _Blocks(torch.autograd.Function):
    """With weights w = exp(s - max), their sums z and p = w / z: o = p v. Given the gradient g of o:

    dv = p^T g;  ds = p (g v^T - rowsum(g o));  dq = ds k;  dk = ds^T q, the last two times 1/sqrt(dim).
    Written by hand, since autograd would look at the mask again and add up dk and dv in the wrong layout.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, seen: Tensor, blocks: int) -> Tensor:
        scale = q.shape[-1] ** -0.5
        q = _grouped(q, k.shape[1])
        outs, kept = [], []
        for start, end in _borders(q.shape[3], blocks):
            scores = _product(q[:, :, :, start:end], k[:, :, :end].contiguous().transpose(-1, -2)).float()
            scores = scores.where(seen[:, :, None, start:end, :end] > 0, float("-inf"))
            weights = ((scores - scores.amax(dim=-1, keepdim=True)) * (scale * math.log2(math.e))).exp2()
            sums = weights.sum(dim=-1, keepdim=True)
            weights = weights.to(v.dtype)
            outs.append((_product(weights, v[:, :, :end]).float() / sums).to(v.dtype))
            kept += [weights, sums]
        together = torch.cat(outs, dim=3)
        ctx.blocks = blocks
        ctx.save_for_backward(q, k, v, together, *kept)
        return together.flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, out, *kept = ctx.saved_tensors
        grad, scale = _grouped(grads[0], k.shape[1]), q.shape[-1] ** -0.5
        means = (grad.float() * out.float()).sum(dim=-1, keepdim=True)
        d_q, d_k, d_v = [], [], []
        borders = _borders(q.shape[3], ctx.blocks)
        for (start, end), weights, sums in zip(borders, kept[::2], kept[1::2], strict=True):
            at = slice(start, end)
            # Divided by the weights' sums here, where there are fewer numbers: then w stands where p would.
            g = (grad[:, :, :, at].float() / sums).to(grad.dtype)
            d_v.append(_rows(weights).transpose(-1, -2) @ _rows(g))
            pull = _product(g, v[:, :, :end].contiguous().transpose(-1, -2)).float()
            d_scores = (weights.float() * (pull - means[:, :, :, at] / sums) * scale).to(q.dtype)
            d_q.append(_product(d_scores, k[:, :, :end]))
            d_k.append(_rows(d_scores).transpose(-1, -2) @ _rows(q[:, :, :, at]))
        return torch.cat(d_q, dim=3).flatten(1, 2), _sum_of(d_k, borders), _sum_of(d_v, borders), None, None


def _borders(time: int, blocks: int) -> list[tuple[int, int]]:
    size = math.ceil(time / blocks)
    return [(start, min(start + size, time)) for start in range(0, time, size)]


def _grouped(x: Tensor, kv_heads: int) -> Float[Tensor, "batch kv_heads group time dim"]:
    """Query heads by the key/value head that they share."""
    return x.view(x.shape[0], kv_heads, -1, *x.shape[2:])


def _rows(x: Float[Tensor, "batch kv_heads group time dim"]) -> Float[Tensor, "batch kv_heads rows dim"]:
    """A group's queries are rows of one product, so its keys and values aren't repeated."""
    return x.flatten(2, 3)


def _product(x: Tensor, shared: Tensor) -> Float[Tensor, "batch kv_heads group time out"]:
    """Each group's rows [batch kv_heads group time inner] times its matrix [batch kv_heads inner out]."""
    return (_rows(x) @ shared).view(*x.shape[:4], -1)


def _sum_of(parts: list[Tensor], borders: list[tuple[int, int]]) -> Float[Tensor, "batch kv_heads keys dim"]:
    """Part i reaches from key 0 to the end of block i; added up stretch by stretch, in fp32."""
    stretches = []
    for index, (start, end) in enumerate(borders):
        over = [part[:, :, start:end].float() for part in parts[index:]]
        stretches.append(sum(over[1:], start=over[0]).to(parts[0].dtype))
    return torch.cat(stretches, dim=2)


BLOCKS = AttentionKernel("blocks", document_mask_bf16, attend_blocks)


@dataclass(frozen=True)
class StackedOp:
    """Maps that share their input as one product with their stacked weights; one by one where there are biases."""

    joint: bool = True

    def __call__(self, x: Tensor, *maps: LinearMap) -> tuple[Tensor, ...]:
        if any(bias is not None for _, bias in maps):
            return PLAIN(x, *maps)
        weights = [weight for weight, _ in maps]
        together = F.linear(x, torch.cat(weights).to(x.dtype))
        return torch.split(together, [weight.shape[0] for weight in weights], dim=-1)


STACKED = StackedOp()


def stack_products(module: nn.Module) -> None:
    """Stack the projections that share their input, in all of a module's blocks, where nothing wraps them."""
    for block in module.modules():
        linears: tuple[Linear, ...] = getattr(block, "input_projections", ())
        if all(linear.op == PLAIN for linear in linears):
            for linear in linears:
                linear.op = STACKED
