"""Who sees whom, and what they make of it.

in:  queries, keys, values of all heads, and a mask (True = may be seen)
out: for every query, the average of the values it may see, weighted by softmax(q . k / sqrt(dim))

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; several query heads share a key/value head (Ainslie et
al. 2023, https://arxiv.org/abs/2305.13245). Documents packed into one row never see each other.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(q [batch heads time dim], k and v [batch kv_heads keys dim], mask [batch 1 time keys]) -> like q."""


class KVCache(Protocol):
    """Remembers keys and values, so that generating a token doesn't compute all earlier ones again."""

    def update(
        self,
        layer: int,
        k: Float[Tensor, "batch kv_heads time dim"],
        v: Float[Tensor, "batch kv_heads time dim"],
    ) -> tuple[
        Float[Tensor, "batch kv_heads keys dim"],
        Float[Tensor, "batch kv_heads keys dim"],
        Bool[Tensor, "batch 1 time keys"],
    ]:
        """Store the new keys and values of `layer` (already normed and turned).

        Returns all keys and values to attend to, and which of them each new position may see.
        Every position must see at least one key (itself).
        """
        ...


def segments_of(ids: Int[Tensor, "batch time"], bos: int, pad: int) -> Int[Tensor, "batch time"]:
    """Number the documents within each row: the count of `bos` so far, -1 on padding."""
    starts = (ids == bos).to(torch.int32).cumsum(dim=1, dtype=torch.int32)
    return starts.masked_fill(ids == pad, -1)


def causal_mask(time: int, device: torch.device) -> Bool[Tensor, "1 1 time time"]:
    """Every position sees itself and what comes before it."""
    return torch.ones(time, time, dtype=torch.bool, device=device).tril()[None, None]


def document_mask(segments: Int[Tensor, "batch time"]) -> Bool[Tensor, "batch 1 time time"]:
    """Causal, and only within equal segments; padding (-1) sees nothing but itself, and nothing sees it."""
    time = segments.shape[1]
    same = (segments[:, :, None] == segments[:, None, :]) & (segments >= 0)[:, :, None]
    self_only = torch.eye(time, dtype=torch.bool, device=segments.device)
    return ((same & causal_mask(time, segments.device)[0]) | self_only)[:, None]


def attend_fused(
    q: Float[Tensor, "batch heads time dim"],
    k: Float[Tensor, "batch kv_heads keys dim"],
    v: Float[Tensor, "batch kv_heads keys dim"],
    mask: Bool[Tensor, "rows 1 time keys"],
) -> Float[Tensor, "batch heads time dim"]:
    """PyTorch's fused attention: the best choice in eager mode and on a GPU."""
    groups = q.shape[1] // k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=groups > 1)


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
