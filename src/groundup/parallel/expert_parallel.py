"""Expert parallel: the ranks of one axis split a layer's experts; tokens travel to their experts and back.

in:  a decoder with experts, not yet sharded, and a ParallelContext with the axis `expert`
out: the same decoder, whose ranks hold different experts

Each rank routes its own tokens, sends every choice to the rank of the expert, computes what it receives, and gets the
results back (GShard, https://arxiv.org/abs/2006.16668). No token is dropped: ranks first exchange how many tokens they
send.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from groundup.core.errors import GroundupError
from groundup.model.decoder import Decoder
from groundup.model.moe import ExpertOp, SortRows, inverse_permutation, sparse_layers
from groundup.parallel.context import ParallelContext
from groundup.parallel.shard import local, shard_parameter

SplitSizes = Callable[[Int[Tensor, "ranks experts"], int], list[int]]
"""(tokens for each rank's experts, tokens of this rank) -> rows to exchange with each rank"""


def expert_parallel(model: Decoder, parallel: ParallelContext) -> None:
    """Split the experts over the axis `expert`, if there is one.

    Raises GroundupError where the decoder has no experts, or a number of them that the axis doesn't divide.
    """
    if parallel.expert_mesh is None:
        return
    mesh = parallel.expert_mesh["expert"]
    if model.config.moe is None:
        raise GroundupError(
            f"runtime.layout.expert = {mesh.size()}: this decoder has no experts. Set it to 1"
        )
    if model.config.moe.n_experts % mesh.size():
        raise GroundupError(
            f"runtime.layout.expert = {mesh.size()} does not divide n_experts = {model.config.moe.n_experts}"
        )
    for layer in sparse_layers(model):
        for name, parameter in list(layer.experts.named_parameters()):
            setattr(layer.experts, name, shard_parameter(parameter, mesh, 0))
        layer.experts.op = ExpertExchange(layer.experts.op, mesh.get_group())


def routed_sizes(counts: Int[Tensor, "ranks experts"], rows: int) -> list[int]:
    """Rows to exchange with each rank, as the router chose."""
    return cast(list[int], counts.sum(dim=1).tolist())


def even_sizes(counts: Int[Tensor, "ranks experts"], rows: int) -> list[int]:
    """The same number of rows for every rank: for simulated tensors, which hold no routing."""
    ranks = len(counts)
    return [rows // ranks + (rank < rows % ranks) for rank in range(ranks)]


@dataclass(frozen=True)
class ExpertExchange:
    """Experts of which each rank has some: rows travel to their expert's rank, through `inner`, and back."""

    inner: ExpertOp
    group: dist.ProcessGroup
    split_sizes: SplitSizes = routed_sizes

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(
        self,
        rows: Float[Tensor, "rows width"],
        counts: Int[Tensor, " experts"],
        gate_up: Tensor,
        down: Tensor,
    ) -> Float[Tensor, "rows width"]:
        ranks = self.group.size()
        sent = counts.view(ranks, -1)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self.group)
        send_sizes, receive_sizes = self.split_sizes(sent, len(rows)), self.split_sizes(received, len(rows))
        x = _Exchange.apply(rows, send_sizes, receive_sizes, self.group)  # type: ignore[no-untyped-call]
        # Received rows are sorted by rank, then expert; grouped products need them sorted by expert.
        local_experts = torch.arange(received.shape[1], device=rows.device).repeat(ranks)
        experts = local_experts.repeat_interleave(received.flatten(), output_size=len(x))
        order = experts.argsort(stable=True)
        back = inverse_permutation(order)
        x = SortRows.apply(x, order, back, 1)  # type: ignore[no-untyped-call]
        output = self.inner(x, received.sum(dim=0), local(gate_up), local(down))
        output = SortRows.apply(output, back, order, 1)  # type: ignore[no-untyped-call]
        return cast(Tensor, _Exchange.apply(output, receive_sizes, send_sizes, self.group))  # type: ignore[no-untyped-call]


def exchange_evenly(model: Decoder) -> None:
    """Exchange the same number of rows with every rank, whatever the router chooses."""
    for layer in sparse_layers(model):
        if isinstance(layer.experts.op, ExpertExchange):
            layer.experts.op = replace(layer.experts.op, split_sizes=even_sizes)


class _Exchange(torch.autograd.Function):
    """Sends rows to their ranks; gradients are sent back."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, send_sizes: list[int], receive_sizes: list[int], group: dist.ProcessGroup
    ) -> Tensor:
        ctx.splits = send_sizes, receive_sizes, group
        received = x.new_empty((sum(receive_sizes), *x.shape[1:]))
        dist.all_to_all_single(received, x.contiguous(), receive_sizes, send_sizes, group=group)
        return received

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        send_sizes, receive_sizes, group = ctx.splits
        back = grads[0].new_empty((sum(send_sizes), *grads[0].shape[1:]))
        dist.all_to_all_single(back, grads[0].contiguous(), send_sizes, receive_sizes, group=group)
        return back, None, None, None
