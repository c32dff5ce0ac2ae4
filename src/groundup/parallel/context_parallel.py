"""Context parallel: the ranks of one axis split the positions of long sequences.

in:  a decoder prepared for the hardware, and a ParallelContext with the axis `context`
out: the same decoder, which computes a rank's own positions of every sequence and attends to the keys of all

Keys and values are all-gathered over the axis; everything else is computed for a rank's own positions
(the all-gather of Llama 3's training, https://arxiv.org/abs/2407.21783, section 3.3.2). A rank
holds the other ranks' keys and values of one layer at a time.
"""

from dataclasses import replace
from functools import partial

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.core.errors import GroundupError
from groundup.model.attention import AttentionKernel, attend_fused, document_mask
from groundup.model.decoder import Decoder
from groundup.model.moe import TokenShard
from groundup.parallel.context import ParallelContext
from groundup.parallel.tensor_parallel import gather_positions, reduced


def context_parallel(model: Decoder, parallel: ParallelContext) -> None:
    """Split positions over the axis `context`, if there is one.

    Raises GroundupError for learned positions, which need whole sequences.
    """
    if parallel.cp_group is None:
        return
    config = model.config
    if config.positions == "learned":
        raise GroundupError("runtime.layout.context: learned positions need whole sequences. Set context = 1")
    sum_over_row = partial(_over_row, model.token_shard, parallel.cp_group)
    model.token_shard = replace(model.token_shard, sum_over_row=sum_over_row)
    model.set_attention_kernel(
        AttentionKernel("context", partial(_own_rows, parallel), partial(_attend_all, parallel.cp_group))
    )


def _over_row(token_shard: TokenShard, group: dist.ProcessGroup, sums: Tensor) -> Tensor:
    return reduced(token_shard.sum_over_row(sums), "sum", group)


def _own_rows(
    parallel: ParallelContext, segments: Int[Tensor, "batch time"], window: int = 0
) -> Bool[Tensor, "batch 1 my_time time"]:
    return document_mask(segments, window)[:, :, parallel.positions(segments.shape[1])]


def _attend_all(
    group: dist.ProcessGroup,
    q: Float[Tensor, "batch heads my_time dim"],
    k: Float[Tensor, "batch kv_heads my_time dim"],
    v: Float[Tensor, "batch kv_heads my_time dim"],
    mask: Bool[Tensor, "batch 1 my_time time"],
) -> Float[Tensor, "batch heads my_time dim"]:
    local_kv = torch.cat([k, v], dim=1).transpose(1, 2)
    all_kv = gather_positions(local_kv.flatten(2), group)
    keys, values = all_kv.view(*all_kv.shape[:2], *local_kv.shape[2:]).transpose(1, 2).chunk(2, dim=1)
    return attend_fused(q, keys, values, mask)
