"""Attention masks and masked grouped-query attention.

in:  queries, keys, values of all heads, and a mask (True = may attend)
out: for every query, the average of the values that it may attend to, weighted by softmax(q . k / sqrt(dim))

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; several query heads share a key/value head (Ainslie et
al. 2023, https://arxiv.org/abs/2305.13245). Documents packed into one sequence never attend to each other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor, Any], Tensor]
"""(q [batch heads time dim], k and v [batch kv_heads keys dim], the kernel's mask) -> like q."""


class KVCache(Protocol):
    """KV cache: keys and values of earlier positions."""

    def cache_update(
        self,
        layer: int,
        k: Float[Tensor, "batch kv_heads time dim"],
        v: Float[Tensor, "batch kv_heads time dim"],
        window: int = 0,
    ) -> tuple[
        Float[Tensor, "batch kv_heads keys dim"],
        Float[Tensor, "batch kv_heads keys dim"],
        Bool[Tensor, "batch 1 time keys"],
    ]:
        """Store the new keys and values of `layer` (after norm and RoPE).

        Returns all keys and values to attend to, and the mask of the new positions: at most `window` positions back,
        the current one included (0 = all). Every position must attend to at least one key (itself).
        """
        ...


@dataclass(frozen=True)
class AttentionKernel:
    """An attention implementation; `parallel/` chooses one.

    make_mask: (segments [batch, time], window) -> the mask for `attend`, made once per batch for all layers with the
    same window.
    """

    name: str
    make_mask: Callable[[Int[Tensor, "batch time"], int], Any]
    attend: Attend


def segments_of(ids: Int[Tensor, "batch time"], bos: int, pad: int) -> Int[Tensor, "batch time"]:
    """Number the documents within each row: the count of `bos` so far, -1 on padding."""
    starts = (ids == bos).to(torch.int32).cumsum(dim=1, dtype=torch.int32)
    return starts.masked_fill(ids == pad, -1)


def document_positions(segments: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """0, 1, 2, ... from the beginning of each document."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    is_start = torch.ones_like(segments, dtype=torch.bool)
    is_start[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return index - index.masked_fill(~is_start, 0).cummax(dim=1).values


def causal_mask(time: int, device: torch.device, window: int = 0) -> Bool[Tensor, "1 1 time time"]:
    """Causal mask; with a window, each position attends to `window` positions, itself included."""
    mask = torch.ones(time, time, dtype=torch.bool, device=device).tril()
    return (mask.triu(1 - window) if window else mask)[None, None]


def document_mask(segments: Int[Tensor, "batch time"], window: int = 0) -> Bool[Tensor, "batch 1 time time"]:
    """Causal mask within equal segments; padding (-1) attends to itself only."""
    time = segments.shape[1]
    # A number of its own for every padding: two passes over all pairs then say everything.
    padding_ids = -1 - torch.arange(time, dtype=segments.dtype, device=segments.device)
    documents = torch.where(segments >= 0, segments, padding_ids)
    same_document = documents[:, None, :, None] == documents[:, None, None, :]
    return same_document & causal_mask(time, segments.device, window)


def attend_fused(
    q: Float[Tensor, "batch heads time dim"],
    k: Float[Tensor, "batch kv_heads keys dim"],
    v: Float[Tensor, "batch kv_heads keys dim"],
    mask: Bool[Tensor, "rows 1 time keys"],
) -> Float[Tensor, "batch heads time dim"]:
    """PyTorch's fused attention with a mask: works everywhere."""
    groups = q.shape[1] // k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=groups > 1)


FUSED = AttentionKernel("fused", document_mask, attend_fused)
