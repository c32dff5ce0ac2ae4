"""Faster ways on a CPU for what `model/` writes plainly: attention by blocks, several projections as one product.

in:  the same tensors as `attend_fused` and `one_by_one`
out: the same results; compiled, in about half the time
"""

import math
from typing import cast

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
    blocks: int = 4,
) -> Float[Tensor, "batch heads time dim"]:
    """Causal attention as plain products over `blocks` blocks of queries; time must equal keys.

    A block of queries looks only at keys up to its own end, so 3/8 of the square is never computed. Compiled on
    a CPU this is about twice as fast as the fused kernel with a mask (batch 16, time 512, 4 heads, bf16).
    """
    time = q.shape[2]
    size = math.ceil(time / blocks)
    parts = []
    for start in range(0, time, size):
        end = min(start + size, time)
        seen = mask[:, :, start:end, :end]
        parts.append(_attend_plain(q[:, :, start:end], k[:, :, :end], v[:, :, :end], seen))
    return torch.cat(parts, dim=2)


def _attend_plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(dim)) v with the softmax in fp32."""
    batch, heads, time, dim = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    # Query heads that share a key/value head become more rows of one product: nothing is copied.
    rows = q.reshape(batch, kv_heads, heads // kv_heads * time, dim)
    scores = (rows @ k.transpose(-1, -2)).view(batch, heads, time, keys)
    scores = (scores.float() / math.sqrt(dim)).masked_fill(~mask, float("-inf"))
    weights = scores.softmax(dim=-1).to(v.dtype)
    out = weights.view(batch, kv_heads, heads // kv_heads * time, keys) @ v
    return out.view(batch, heads, time, dim)


BLOCKS = AttentionKernel("blocks", document_mask, attend_blocks)


def stacked(x: Tensor, *linears: nn.Module) -> tuple[Tensor, ...]:
    """As `one_by_one`, with the weights stacked so that several products become one, where all are plain."""
    if any(type(linear) is not Linear or linear.bias is not None for linear in linears):
        return one_by_one(x, *linears)
    weights = [cast(Tensor, linear.weight) for linear in linears]
    together = F.linear(x, torch.cat(weights).to(x.dtype))
    return torch.split(together, [weight.shape[0] for weight in weights], dim=-1)
