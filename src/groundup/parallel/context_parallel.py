"""Context parallel: the ranks of one axis share the positions of long rows.

in:  a decoder fitted to the hardware, and a world with the axis `context`
out: the same decoder, which is given a rank's own positions of every row, and looks at the keys of all

Keys and values are gathered over the axis; queries, and all that is done position by position, stay where they are
(the all-gather of Llama 3's training, https://arxiv.org/abs/2407.21783, section 3.3.2). What the ranks hold of each
other is keys and values of one layer at a time.
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


def context_parallel(model: Decoder, world: ParallelContext) -> None:
    """Let attention reach over the world's axis `context`, if it has one.

    Raises GroundupError for what needs whole rows: learned positions.
    """
    if world.cp_group is None:
        return
    config = model.config
    if config.positions == "learned":
        raise GroundupError("runtime.layout.context: learned positions need whole rows. Set context = 1")
    both = partial(_over_row, model.token_shard, world.cp_group)
    model.token_shard = replace(model.token_shard, sum_over_row=both)
    model.set_attention_kernel(
        AttentionKernel("context", partial(_own_rows, world), partial(_attend_all, world.cp_group))
    )


def _over_row(share: TokenShard, group: dist.ProcessGroup, sums: Tensor) -> Tensor:
    return reduced(share.sum_over_row(sums), "sum", group)


def _own_rows(
    world: ParallelContext, segments: Int[Tensor, "batch time"], window: int = 0
) -> Bool[Tensor, "batch 1 my_time time"]:
    return document_mask(segments, window)[:, :, world.positions(segments.shape[1])]


def _attend_all(
    group: dist.ProcessGroup,
    q: Float[Tensor, "batch heads my_time dim"],
    k: Float[Tensor, "batch kv_heads my_time dim"],
    v: Float[Tensor, "batch kv_heads my_time dim"],
    seen: Bool[Tensor, "batch 1 my_time time"],
) -> Float[Tensor, "batch heads my_time dim"]:
    mine = torch.cat([k, v], dim=1).transpose(1, 2)
    everything = gather_positions(mine.flatten(2), group)
    keys, values = everything.view(*everything.shape[:2], *mine.shape[2:]).transpose(1, 2).chunk(2, dim=1)
    return attend_fused(q, keys, values, seen)
