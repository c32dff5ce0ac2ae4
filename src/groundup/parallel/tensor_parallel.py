"""Tensor parallel: the ranks of one axis split every large matrix, and the positions of activations between matrices.

in:  a decoder, not yet sharded, and a ParallelContext with the axis `tensor`
out: the same decoder; the ranks together compute what one rank would

Queries, keys, values, gate and up are split by rows, so that each rank has its own heads and hidden channels; output
and down projections are split by columns, and the ranks' partial products are summed (Shoeybi et al. 2019,
https://arxiv.org/abs/1909.08053). Norms and the residual stream are computed for a rank's own positions (sequence
parallel, Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198). Embedding and head are split by tokens; the loss
is computed where the logits are.

Replicated parameters (norms, scalars) get a gradient from a rank's own positions or heads;
`shard.sum_replicated_gradients` adds these up.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from groundup.core.errors import GroundupError
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.layers import Layer, NormFn, SwiGLU
from groundup.model.linear import PLAIN, Linear, LinearMap, LinearOp, wrap
from groundup.model.lora import LoraLinear
from groundup.model.losses import CHUNK, Kernel, softcap
from groundup.model.moe import TokenShard
from groundup.parallel.context import ParallelContext
from groundup.parallel.cpu import STACKED
from groundup.parallel.fp8 import ALIGNMENT, aligned, is_fp8
from groundup.parallel.shard import local, shard_parameter

functional = torch.ops._c10d_functional

# A tensor split over two axes is redistributed axis by axis, and PyTorch warns of each; it is rare, and no reduction.
logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)


def tensor_parallel(model: Decoder, parallel: ParallelContext) -> None:
    """Split the decoder over the axis `tensor`, if there is one.

    Raises GroundupError naming the number that the axis doesn't divide, or the switch that can't be split.
    """
    if parallel.mesh is None or parallel.mesh["tensor"].size() == 1:
        return
    mesh = parallel.mesh["tensor"]
    group = mesh.get_group()
    _check(model.config, mesh.size())
    for layer in cast(list[Layer], model.model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        _split_linears(attention.input_projections, attention.output_projection, mesh)
        if isinstance(mlp, SwiGLU):  # experts are computed whole, for a rank's own positions
            _split_linears(mlp.input_projections, mlp.output_projection, mesh)
        if model.config.qk_norm == "width":
            for norm in (attention.q_norm, attention.k_norm):
                cast(Any, norm).normalize = partial(_rms_norm_over_ranks, group)
    model.model.embed_tokens.weight = shard_parameter(model.model.embed_tokens.weight, mesh, 0)
    if not model.config.tie_embeddings and hasattr(model, "lm_head"):  # not under a value head
        model.lm_head.weight = shard_parameter(model.lm_head.weight, mesh, 0)
    model.embedding_fn = partial(_split_embedding, group)
    last_norm = cast(Any, model.model.norm)
    last_norm.normalize = partial(_gathered_norm, group, last_norm.normalize)
    model.cross_entropy = partial(split_cross_entropy, group)
    own = partial(_own_positions, group)
    model.token_shard = TokenShard(
        own, partial(reduced, operation="sum", group=group), partial(_sum_value, group)
    )


def _split_linears(inputs: Sequence[Linear], output: Linear, mesh: DeviceMesh) -> None:
    """Split the maps that read the residual stream by rows, and the one that writes to it by columns."""
    group = mesh.get_group()
    for linear in inputs:
        _split_weight(linear, mesh, 0)
    _split_weight(output, mesh, 1)
    # One product for all maps that share their input, unless something else wraps the plain one.
    wrap(inputs, lambda op: ColumnParallelOp(STACKED if op == PLAIN else op, group))
    wrap([output], lambda op: RowParallelOp(op, group))


def _split_weight(linear: Linear, mesh: DeviceMesh, axis: int) -> None:
    """Split a matrix by rows (0) or columns (1), and the factor of its LoRA adapter that has the same axis."""
    linear.weight = shard_parameter(linear.weight, mesh, axis)
    if is_fp8(linear) and not aligned(local(linear.weight)):
        rows, columns = local(linear.weight).shape
        raise GroundupError(
            f'precision = "fp8": runtime.layout.tensor = {mesh.size()} leaves a rank a matrix of {rows} x {columns}, '
            f"and fp8 needs multiples of {ALIGNMENT}. Use a smaller tensor axis, or another precision"
        )
    if isinstance(linear, LoraLinear):
        factor = linear.lora_B if axis == 0 else linear.lora_A
        factor.weight = shard_parameter(factor.weight, mesh, axis)
        wrap([factor], LocalOp)


@dataclass(frozen=True)
class ColumnParallelOp:
    """Maps split by rows of their weights: all positions times this rank's rows of every matrix."""

    inner: LinearOp
    group: dist.ProcessGroup
    joint: bool = True

    def __call__(self, x: Tensor, *maps: LinearMap) -> tuple[Tensor, ...]:
        everything = gather_positions(x, self.group)
        return self.inner(everything, *((local(weight), bias) for weight, bias in maps))


@dataclass(frozen=True)
class RowParallelOp:
    """Maps split by columns of their weights: the sum over all ranks' partial products, of a rank's own positions."""

    inner: LinearOp
    group: dist.ProcessGroup
    joint: bool = False

    def __call__(self, x: Tensor, *maps: LinearMap) -> tuple[Tensor, ...]:
        products = self.inner(x, *((local(weight), bias) for weight, bias in maps))
        return tuple(scatter_sum(product, self.group) for product in products)


@dataclass(frozen=True)
class LocalOp:
    """A map of which this rank computes its own rows or columns; a wrapper around it communicates."""

    inner: LinearOp
    joint: bool = False

    def __call__(self, x: Tensor, *maps: LinearMap) -> tuple[Tensor, ...]:
        return self.inner(x, *((local(weight), bias) for weight, bias in maps))


def _check(config: DecoderConfig, size: int) -> None:
    for name in ("n_kv_heads", "d_ff", "max_seq_len"):
        if getattr(config, name) % size:
            raise GroundupError(
                f"runtime.layout.tensor = {size} does not divide {name} = {getattr(config, name)} of this decoder. "
                f"Use a divisor, or shard only (tensor = 1)"
            )
    unsupported = {"biases": config.biases, "LayerNorm": config.norm == "layer",
                   "value_embeddings": config.value_embeddings,
                   'activation = "relu2"': config.activation != "swiglu"}  # fmt: skip
    for name, used in unsupported.items():
        if used:
            raise GroundupError(
                f"runtime.layout.tensor = {size}: a decoder with {name} can't be split. Set tensor = 1"
            )


def _gathered_norm(group: dist.ProcessGroup, norm: NormFn, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The last norm, of a rank's own positions, then the positions of all ranks."""
    return gather_positions(norm(x, weight, eps), group)


def _rms_norm_over_ranks(
    group: dist.ProcessGroup, x: Float[Tensor, "batch time local"], weight: Float[Tensor, " all"], eps: float
) -> Float[Tensor, "batch time local"]:
    """`rms_norm` over channels that are split over the ranks."""
    x_fp32 = x.float()
    squares = _SumOverRanks.apply(x_fp32.pow(2).sum(dim=-1, keepdim=True), group)  # type: ignore[no-untyped-call]
    scale = torch.rsqrt(squares / weight.shape[0] + eps)
    local_weight = weight.chunk(group.size())[dist.get_rank(group)]
    return (x_fp32 * scale * local_weight).to(x.dtype)


def _split_embedding(
    group: dist.ProcessGroup, ids: Int[Tensor, "batch time"], table: Tensor
) -> Float[Tensor, "batch own_time width"]:
    """Embeddings of a rank's own positions; each rank has the vectors of some tokens."""
    vectors, first = local(table), first_token(table, group)
    held = (ids >= first) & (ids < first + vectors.shape[0])
    embedded = F.embedding((ids - first).where(held, 0), vectors) * held[..., None]
    return scatter_sum(embedded, group)


def first_token(table: Tensor, group: dist.ProcessGroup) -> int:
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
    """`losses.cross_entropy` with the head split by tokens: each rank has its tokens' logits, all have the loss.

    kernel: ignored; three collectives per chunk leave little to compile.
    """
    first = first_token(head_weight, group)
    loss = _SplitCrossEntropy.apply(hidden, local(head_weight), targets, weights, group, cap, first)  # type: ignore[no-untyped-call]
    return cast(Tensor, loss), weights.float().sum()


class _SplitCrossEntropy(torch.autograd.Function):
    """Computes the gradients with the loss, as in `losses.py`; that of `hidden` is the part of this rank's tokens."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, local_head: Tensor, targets: Tensor, weights: Tensor, group: dist.ProcessGroup,
        cap: float, first: int,
    ) -> Tensor:  # fmt: skip
        head = local_head.to(hidden.dtype)
        tokens = torch.arange(first, first + local_head.shape[0], device=hidden.device)
        loss, d_hidden = torch.zeros((), device=hidden.device), torch.empty_like(hidden)
        d_head = torch.zeros(head.shape, device=hidden.device)
        for start in range(0, hidden.shape[0], CHUNK):
            at = slice(start, start + CHUNK)
            logits = softcap((hidden[at] @ head.T).float(), cap)
            is_target = tokens[None] == targets[at, None]
            max_logits = reduced(logits.amax(dim=-1), "max", group)
            sums = torch.stack([(logits - max_logits[:, None]).exp().sum(-1), (logits * is_target).sum(-1)])
            sum_exp, target_logits = reduced(sums, "sum", group)
            log_norm = max_logits + sum_exp.log()
            loss += ((log_norm - target_logits) * weights[at]).sum()
            d_logits = ((logits - log_norm[:, None]).exp() - is_target.float()) * weights[at, None]
            if cap:
                d_logits = d_logits * (1 - (logits / cap).square())
            d_logits = d_logits.to(hidden.dtype)
            d_hidden[at] = d_logits @ head
            d_head += d_logits.T @ hidden[at]
        ctx.save_for_backward(d_hidden, d_head.to(local_head.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_head = ctx.saved_tensors
        return d_hidden * grads[0], d_head * grads[0], None, None, None, None, None


def _own_positions(group: dist.ProcessGroup, whole: Tensor) -> Tensor:
    return whole.chunk(group.size(), dim=1)[dist.get_rank(group)]


def _sum_value(group: dist.ProcessGroup, part: Tensor) -> Tensor:
    """The sum over all ranks, whose gradient is that of this rank's part."""
    return part + (reduced(part.detach(), "sum", group) - part.detach())


def gather_positions(
    x: Float[Tensor, "batch own_time width"], group: dist.ProcessGroup
) -> Float[Tensor, "batch time width"]:
    """All ranks' positions. Backward: the sum over all ranks of the gradients of this rank's positions."""
    return cast(Tensor, _GatherPositions.apply(x, group))  # type: ignore[no-untyped-call]


def scatter_sum(
    x: Float[Tensor, "batch time width"], group: dist.ProcessGroup
) -> Float[Tensor, "batch own_time width"]:
    """The sum over all ranks, of this rank's positions. Backward: the gradients of all positions, on every rank."""
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
    """All-reduce whose result every rank uses, so that the backward pass sums the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return reduced(x, "sum", group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return reduced(grads[0], "sum", ctx.group), None


# PyTorch's public wrappers change from version to version; these operators don't, and can be compiled.


def _gathered(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    parts = functional.all_gather_into_tensor(x.contiguous(), group.size(), group.group_name)
    parts = functional.wait_tensor(parts).view(group.size(), *x.shape)
    return torch.cat(parts.unbind(), dim=1)


def _scattered(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    parts = x.view(x.shape[0], group.size(), -1, x.shape[2]).movedim(1, 0).contiguous().flatten(0, 1)
    own = functional.reduce_scatter_tensor(parts, "sum", group.size(), group.group_name)
    return cast(Tensor, functional.wait_tensor(own))


def reduced(x: Tensor, operation: str, group: dist.ProcessGroup) -> Tensor:
    """All-reduce with "sum" or "max"."""
    return cast(
        Tensor, functional.wait_tensor(functional.all_reduce(x.contiguous(), operation, group.group_name))
    )
