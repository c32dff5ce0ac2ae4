"""Expert parallel: the ranks of one axis share a layer's experts; tokens travel to the experts they chose, and back.

in:  a decoder with experts, not yet sharded, and a world with the axis `expert`
out: the same decoder, whose ranks hold different experts

Each rank routes its own tokens, sends every choice to the rank that holds the expert, computes what it was sent, and
gets its own back (GShard, https://arxiv.org/abs/2006.16668). No token is dropped: ranks tell each other first how many
they send.
"""

from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from groundup.core.errors import GroundupError
from groundup.model.decoder import Decoder
from groundup.model.moe import Experts, Sort, inverse, sparse_layers, swiglus
from groundup.parallel.context import ParallelContext
from groundup.parallel.shard import local, split


def expert_parallel(model: Decoder, world: ParallelContext) -> None:
    """Share the experts over the world's axis `expert`, if it has one.

    Raises GroundupError where the decoder has none, or a number of them that the axis doesn't divide.
    """
    if world.experts is None:
        return
    mesh = world.experts["expert"]
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
            setattr(layer.experts, name, split(parameter, mesh, 0))
        layer.experts.__class__ = _FarExperts
        cast(Any, layer.experts).group = mesh.get_group()


class _FarExperts(Experts):
    """Experts of which this rank has some."""

    group: dist.ProcessGroup

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def compute(
        self, rows: Float[Tensor, "rows width"], counts: Int[Tensor, " experts"]
    ) -> Float[Tensor, "rows width"]:
        """As `Experts.compute`: every row travels to its expert's rank and comes back."""
        ranks = self.group.size()
        sent = counts.view(ranks, -1)
        got = torch.empty_like(sent)
        dist.all_to_all_single(got, sent, group=self.group)
        give, take = self.rows_per_rank(sent, len(rows)), self.rows_per_rank(got, len(rows))
        come = _Exchange.apply(rows, give, take, self.group)  # type: ignore[no-untyped-call]
        # They come sorted by rank, then expert; the products want them by expert alone.
        every = torch.arange(got.shape[1], device=rows.device).repeat(ranks)
        experts = every.repeat_interleave(got.flatten(), output_size=len(come))
        order = experts.argsort(stable=True)
        back = inverse(order)
        come = Sort.apply(come, order, back, 1)  # type: ignore[no-untyped-call]
        out = swiglus(come, got.sum(dim=0), local(self.gate_up_proj), local(self.down_proj))
        out = Sort.apply(out, back, order, 1)  # type: ignore[no-untyped-call]
        return cast(Tensor, _Exchange.apply(out, take, give, self.group))  # type: ignore[no-untyped-call]

    def rows_per_rank(self, counts: Int[Tensor, "ranks experts"], rows: int) -> list[int]:
        """Of so many rows of this rank, those that go to each rank, or the ones that come from it."""
        return cast(list[int], counts.sum(dim=1).tolist())


def share_evenly(model: Decoder) -> None:
    """Give every rank the same number of rows, whatever the router says: for a model whose tensors hold nothing."""

    def even(counts: Int[Tensor, "ranks experts"], rows: int) -> list[int]:
        ranks = len(counts)
        return [rows // ranks + (rank < rows % ranks) for rank in range(ranks)]

    for layer in sparse_layers(model):
        cast(Any, layer.experts).rows_per_rank = even


class _Exchange(torch.autograd.Function):
    """Rows to their ranks; gradients the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, give: list[int], take: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.splits = give, take, group
        out = x.new_empty((sum(take), *x.shape[1:]))
        dist.all_to_all_single(out, x.contiguous(), take, give, group=group)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        give, take, group = ctx.splits
        back = grads[0].new_empty((sum(give), *grads[0].shape[1:]))
        dist.all_to_all_single(back, grads[0].contiguous(), give, take, group=group)
        return back, None, None, None
