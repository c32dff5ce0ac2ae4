"""Tensor parallel: the ranks of one axis share every large matrix, and the positions of what lies between matrices.

in:  a decoder, not yet sharded, and a world with the axis `tensor`
out: the same decoder; what it computes is the same on the ranks together

Queries, keys, values, gate and up are split by rows, so a rank has heads and hidden numbers of its own; what leads back
into the stream is split by columns, and the ranks' parts of it are added up (Shoeybi et al. 2019,
https://arxiv.org/abs/1909.08053). Norms and the stream are computed for a rank's own positions (Korthikanti et al.
2022, https://arxiv.org/abs/2205.05198). Embedding and head are split by tokens; the loss is taken where its logits are.

What isn't split (norms, scalars) gets a gradient from a rank's own positions or heads; `shard.finish_gradients` adds
these up.
"""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from groundup.core.errors import GroundupError
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.layers import Layer, Linear, RMSNorm, SwiGLU
from groundup.model.losses import CHUNK, Kernel, softcap
from groundup.model.moe import RowShare
from groundup.parallel.context import ParallelContext
from groundup.parallel.shard import local, split

functional = torch.ops._c10d_functional

# What is split by two axes is gathered axis by axis, as it says with every tensor; rarely, and it is no reduction.
logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)


def tensor_parallel(model: Decoder, world: ParallelContext) -> None:
    """Split the decoder over the world's axis `tensor`, if it has one.

    Raises GroundupError naming the number that the axis doesn't divide, or the switch that can't be split.
    """
    if world.mesh is None or world.mesh["tensor"].size() == 1:
        return
    mesh = world.mesh["tensor"]
    group = mesh.get_group()
    _check(model.config, mesh.size())
    for layer in cast(list[Layer], model.model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        _split_linears(
            attention, (attention.q_proj, attention.k_proj, attention.v_proj), attention.o_proj, mesh
        )
        if isinstance(mlp, SwiGLU):  # experts are computed for a rank's own positions, whole
            _split_linears(mlp, (mlp.gate_proj, mlp.up_proj), mlp.down_proj, mesh)
        if model.config.qk_norm == "width":
            for norm in (attention.q_norm, attention.k_norm):
                _become(norm, _NormOverRanks, group)
    model.model.embed_tokens.weight = split(model.model.embed_tokens.weight, mesh, 0)
    if not model.config.tie_embeddings:
        model.lm_head.weight = split(model.lm_head.weight, mesh, 0)
    model.embedding_fn = partial(_looked_up, group)
    _become(model.model.norm, _GatheringNorm, group)
    model.cross_entropy = partial(split_cross_entropy, group)
    own = partial(_own_positions, group)
    model.row_share = RowShare(own, partial(reduced, how="sum", group=group), partial(_sum_once, group))


def _split_linears(block: Any, inner: Sequence[nn.Module], outer: nn.Module, mesh: DeviceMesh) -> None:
    """Those that lead out of the stream by rows, and what leads back into it by columns."""
    for linear in inner:
        linear.weight = split(cast(Tensor, linear.weight), mesh, 0)
    outer.weight = split(cast(Tensor, outer.weight), mesh, 1)
    _become(outer, _Joined, mesh.get_group())
    block.project = partial(_split_products, mesh.get_group())


def _become(module: nn.Module, kind: type[nn.Module], group: dist.ProcessGroup) -> None:
    """The same parameters, computed together with the group."""
    module.__class__ = kind
    cast(Any, module).group = group


def _check(config: DecoderConfig, size: int) -> None:
    for name in ("n_kv_heads", "d_ff", "max_seq_len"):
        if getattr(config, name) % size:
            raise GroundupError(
                f"runtime.layout.tensor = {size} does not divide {name} = {getattr(config, name)} of this decoder. "
                f"Take a divisor, or shard instead (tensor = 1)"
            )
    odd = {"biases": config.biases, "value_embeddings": config.value_embeddings,
           'activation = "relu2"': config.activation != "swiglu"}  # fmt: skip
    for name, there in odd.items():
        if there:
            raise GroundupError(
                f"runtime.layout.tensor = {size}: a decoder with {name} can't be split. Set tensor = 1"
            )


def _split_products(group: dist.ProcessGroup, x: Tensor, *linears: nn.Module) -> tuple[Tensor, ...]:
    """All positions times this rank's rows of every matrix, as one product."""
    weights = [local(cast(Tensor, linear.weight)) for linear in linears]
    together = F.linear(gather_positions(x, group), torch.cat(weights).to(x.dtype))
    return torch.split(together, [weight.shape[0] for weight in weights], dim=-1)


class _Joined(Linear):
    """A product whose columns are split: every rank gets the sum over all ranks for its own positions."""

    group: dist.ProcessGroup

    def forward(self, x: Float[Tensor, "batch time inner"]) -> Float[Tensor, "batch my_time outer"]:
        return scatter_sum(F.linear(x, local(self.weight).to(x.dtype)), self.group)


class _GatheringNorm(RMSNorm):
    """The last norm; all positions come together after it."""

    group: dist.ProcessGroup

    def forward(self, x: Float[Tensor, "batch my_time width"]) -> Float[Tensor, "batch time width"]:
        return gather_positions(super().forward(x), self.group)


class _NormOverRanks(RMSNorm):
    """A norm over numbers of which each rank has a part."""

    group: dist.ProcessGroup

    def forward(self, x: Float[Tensor, "batch time mine"]) -> Float[Tensor, "batch time mine"]:
        wide = x.float()
        squares = _SumOverRanks.apply(wide.pow(2).sum(dim=-1, keepdim=True), self.group)  # type: ignore[no-untyped-call]
        scale = torch.rsqrt(squares / self.weight.shape[0] + self.eps)
        mine = self.weight.chunk(self.group.size())[dist.get_rank(self.group)]
        return (wide * scale * mine).to(x.dtype)


def _looked_up(
    group: dist.ProcessGroup, ids: Int[Tensor, "batch time"], table: Tensor
) -> Float[Tensor, "batch my_time width"]:
    """Embeddings of a rank's own positions; each rank has the vectors of some tokens."""
    mine, first = local(table), _first_token(table, group)
    here = (ids >= first) & (ids < first + mine.shape[0])
    found = F.embedding((ids - first).where(here, 0), mine) * here[..., None]
    return scatter_sum(found, group)


def _first_token(table: Tensor, group: dist.ProcessGroup) -> int:
    """The first of this rank's tokens in a table [vocab, width] that is split by rows; the last rank may have fewer."""
    return dist.get_rank(group) * -(-table.shape[0] // group.size())


def split_cross_entropy(
    group: dist.ProcessGroup,
    hidden: Float[Tensor, "positions width"],
    head_weight: Tensor,
    targets: Int[Tensor, " positions"],
    weights: Float[Tensor, " positions"],
    kernel: Kernel | None = None,
    cap: float = 0.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """`losses.cross_entropy` with the head split by tokens: every rank has its tokens' logits, all have the loss.

    kernel: not used; what can be compiled of it waits for other ranks three times a chunk.
    """
    first = _first_token(head_weight, group)
    loss = _SplitCrossEntropy.apply(hidden, local(head_weight), targets, weights, group, cap, first)  # type: ignore[no-untyped-call]
    return cast(Tensor, loss), weights.float().sum()


class _SplitCrossEntropy(torch.autograd.Function):
    """The gradients are ready when the loss is, as in `losses.py`; that of `hidden` is what this rank's tokens say."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, mine: Tensor, targets: Tensor, weights: Tensor, group: dist.ProcessGroup,
        cap: float, first: int,
    ) -> Tensor:  # fmt: skip
        head = mine.to(hidden.dtype)
        tokens = torch.arange(first, first + mine.shape[0], device=hidden.device)
        loss, d_hidden = torch.zeros((), device=hidden.device), torch.empty_like(hidden)
        d_head = torch.zeros(head.shape, device=hidden.device)
        for start in range(0, hidden.shape[0], CHUNK):
            at = slice(start, start + CHUNK)
            logits = softcap((hidden[at] @ head.T).float(), cap)
            is_target = tokens[None] == targets[at, None]
            highest = reduced(logits.amax(dim=-1), "max", group)
            figures = torch.stack([(logits - highest[:, None]).exp().sum(-1), (logits * is_target).sum(-1)])
            sums, chosen = reduced(figures, "sum", group)
            log_norm = highest + sums.log()
            loss += ((log_norm - chosen) * weights[at]).sum()
            slope = ((logits - log_norm[:, None]).exp() - is_target.float()) * weights[at, None]
            if cap:
                slope = slope * (1 - (logits / cap).square())
            slope = slope.to(hidden.dtype)
            d_hidden[at] = slope @ head
            d_head += slope.T @ hidden[at]
        ctx.save_for_backward(d_hidden, d_head.to(mine.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_head = ctx.saved_tensors
        return d_hidden * grads[0], d_head * grads[0], None, None, None, None, None


def _own_positions(group: dist.ProcessGroup, whole: Tensor) -> Tensor:
    return whole.chunk(group.size(), dim=1)[dist.get_rank(group)]


def _sum_once(group: dist.ProcessGroup, part: Tensor) -> Tensor:
    return part + (reduced(part.detach(), "sum", group) - part.detach())


def gather_positions(
    x: Float[Tensor, "batch my_time width"], group: dist.ProcessGroup
) -> Float[Tensor, "batch time width"]:
    """All ranks' positions. Gradients: what all ranks say of this rank's positions, added up."""
    return cast(Tensor, _GatherPositions.apply(x, group))  # type: ignore[no-untyped-call]


def scatter_sum(
    x: Float[Tensor, "batch time width"], group: dist.ProcessGroup
) -> Float[Tensor, "batch my_time width"]:
    """The sum over all ranks, of this rank's positions. Gradients: those of all positions, on every rank."""
    return cast(Tensor, _ScatterSum.apply(x, group))  # type: ignore[no-untyped-call]


class _GatherPositions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _gathered(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _scattered(grads[0], ctx.group), None


class _ScatterSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _scattered(x, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _gathered(grads[0], ctx.group), None


class _SumOverRanks(torch.autograd.Function):
    """Each rank goes on with the sum, so each rank's gradient of it counts."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return reduced(x, "sum", group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return reduced(grads[0], "sum", ctx.group), None


# PyTorch's own names for these change from version to version; the operators below them don't, and can be compiled.


def _gathered(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    parts = functional.all_gather_into_tensor(x.contiguous(), group.size(), group.group_name)
    parts = functional.wait_tensor(parts).view(group.size(), *x.shape)
    return torch.cat(parts.unbind(), dim=1)


def _scattered(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    parts = x.view(x.shape[0], group.size(), -1, x.shape[2]).movedim(1, 0).contiguous().flatten(0, 1)
    mine = functional.reduce_scatter_tensor(parts, "sum", group.size(), group.group_name)
    return cast(Tensor, functional.wait_tensor(mine))


def reduced(x: Tensor, how: str, group: dist.ProcessGroup) -> Tensor:
    return cast(Tensor, functional.wait_tensor(functional.all_reduce(x.contiguous(), how, group.group_name)))
