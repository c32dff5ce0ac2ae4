"""FlexAttention: attention on a GPU that skips blocks in which the mask allows no pair.

in:  the same tensors as `attend_fused`
out: the same results; blocks of 128 x 128 without a visible pair are never computed, and no mask is kept per pair

FlexAttention (Dong et al. 2024, https://arxiv.org/abs/2412.05496). Flash attention over sequences of any length
does the same, but wants the number of documents on the host, so every batch would wait for the device.
"""

from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from groundup.model.attention import AttentionKernel

FLEX_HEAD_DIM = 16
"""Smallest head dimension that its kernels support."""

Visible = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(row, head, query, key), each an index -> whether the query may attend to the key."""


def visibility_rule(segments: Int[Tensor, "batch time"], window: int) -> Visible:
    """`document_mask`, one pair at a time."""

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Bool[Tensor, ""]:
        same = (segments[row, query] == segments[row, key]) & (segments[row, query] >= 0) & (key <= query)
        if window:
            same = same & (query - key < window)
        return same | (query == key)

    return sees


@cache
def flex() -> AttentionKernel:
    """The kernel. Compiled when it is first used, and again for every new shape."""
    make_mask = torch.compile(create_block_mask, dynamic=False)
    attend = torch.compile(flex_attention, dynamic=False)

    def see_blocks(segments: Int[Tensor, "batch time"], window: int = 0) -> BlockMask:
        rows, time = segments.shape
        return make_mask(
            visibility_rule(segments, window), rows, None, time, time, device=str(segments.device)
        )

    def attend_flex(
        q: Float[Tensor, "batch heads time dim"],
        k: Float[Tensor, "batch kv_heads keys dim"],
        v: Float[Tensor, "batch kv_heads keys dim"],
        mask: BlockMask,
    ) -> Float[Tensor, "batch heads time dim"]:
        grouped = q.shape[1] > k.shape[1]
        return attend(q, k, v, block_mask=mask, enable_gqa=grouped)

    return AttentionKernel("flex", see_blocks, attend_flex)
