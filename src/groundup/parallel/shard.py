"""FSDP2: every rank keeps a shard of each weight and all-gathers a layer's weights to compute it.

in:  a model prepared for the hardware, a ParallelContext of several ranks
out: the same model with DTensor parameters, whose gradients are summed over all ranks

PyTorch's `fully_shard` (Zhao et al. 2023, https://arxiv.org/abs/2304.11277). Losses are divided by the weight of the
whole step on all ranks, so gradients are summed, not averaged. A small model is one unit: its layers take less time to
compute than a collective to start.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeGuard, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.placement_types import Placement, _StridedShard

from groundup.model.decoder import Decoder
from groundup.model.layers import Layer
from groundup.model.moe import sparse_layers
from groundup.model.value_head import ValueModel, decoder_of, model_roots
from groundup.parallel.context import ParallelContext
from groundup.parallel.hardware import Hardware

SINGLE_UNIT_BYTES = 2**25
"""Largest model, in bytes of the compute dtype, that is a single FSDP unit; larger ones have a unit per layer."""
InitTensor = Callable[[str, torch.Size], Tensor]
"""(name of a parameter or saved buffer, its whole shape) -> its initial value, whole, on the CPU"""


def shard(
    model: nn.Module,
    stages: Sequence[Decoder],
    parallel: ParallelContext,
    hardware: Hardware,
    init_tensor: InitTensor,
) -> None:
    """Shard the parameters over the ranks; weights are gathered in the compute dtype, gradients summed in fp32.

    stages: pipeline stages that compute in place of `model` and share its parameters; empty = `model` computes.
    A model on the meta device gets its initial weights here: no rank ever holds more than its shard and one parameter.
    Where the hardware is the meta device, too, the model stays empty.
    """
    if parallel.mesh is None:
        return
    # Cosines, sines and masks keep their own dtype.
    policy = MixedPrecisionPolicy(
        param_dtype=hardware.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    model_parts = model_roots(model)
    fp32 = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    roots = stages or model_parts
    layers = [
        layer for part in model_parts for layer in decoder_of(part).model.layers if isinstance(layer, Layer)
    ]
    parts: list[tuple[nn.Module, DeviceMesh]] = []
    if parallel.expert_mesh is not None:
        parts += [
            (layer.experts, _shard_mesh(parallel.expert_mesh, "rest")) for layer in sparse_layers(model)
        ]
    size = sum(parameter.numel() for parameter in model.parameters()) * hardware.dtype.itemsize
    units = layers if size > SINGLE_UNIT_BYTES else []
    scores = [part.score for part in model_parts if isinstance(part, ValueModel)]
    parts += [(part, _shard_mesh(parallel.mesh, "shard")) for part in (*scores, *units, *roots)]
    for part, mesh in parts:
        # In a pipeline weights stay gathered until the last micro-batch of a step.
        fully_shard(
            part,
            mesh=mesh,
            mp_policy=fp32 if part in scores else policy,
            reshard_after_forward=False if stages else None,
        )
        module = cast(FSDPModule, part)
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
        if hardware.device.type == "cpu":
            module.set_custom_reduce_scatter(cast(Any, _ReduceScatterByAllToAll()))
    for layer in units:
        register_fsdp_forward_method(layer, "forward_uncompiled")
    for model_part in () if stages else model_parts:
        register_fsdp_forward_method(model_part, "values" if isinstance(model_part, ValueModel) else "hidden")
    for incomplete in stages or (model,):
        _materialize(incomplete, hardware.device, init_tensor)


class _ReduceScatterByAllToAll:
    """FSDP's reduce-scatter on a CPU, always a sum: gloo's own is an all-reduce, which sends twice the bytes."""

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A buffer of the collective."""
        return torch.empty(size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> None:
        """Parts of `input_tensor` [ranks x part], one for each rank, added up in `output_tensor` [part]."""
        received = torch.empty_like(input_tensor)
        dist.all_to_all_single(received, input_tensor, group=group)
        torch.sum(received.view(group.size(), -1), dim=0, out=output_tensor)


def _shard_mesh(mesh: DeviceMesh, axis: str) -> DeviceMesh:
    """The mesh to shard over: an axis, with the replicas if there are any."""
    return mesh["replicate", axis] if mesh["replicate"].size() > 1 else mesh[axis]


def _materialize(model: nn.Module, device: torch.device, init_tensor: InitTensor) -> None:
    """The same first weights as on one rank, for what is on the meta device; what isn't saved starts at zero."""
    if device.type == "meta" or not any(parameter.is_meta for parameter in model.parameters()):
        return
    model.to_empty(device=device)
    for buffer in model.buffers():
        buffer.zero_()
    for name, tensor in model.state_dict().items():
        whole = init_tensor(name, tensor.shape).to(device)
        local(tensor).copy_(local_shard(whole, tensor) if isinstance(tensor, DTensor) else whole)


def group_by_mesh(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters that are spread over the same ranks together: one operation can't take others."""
    groups: dict[DeviceMesh | None, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(parameter.device_mesh if isinstance(parameter, DTensor) else None, []).append(
            parameter
        )
    return list(groups.values())


def sync_gradients(model: nn.Module, now: bool) -> None:
    """Whether the next backward pass adds gradients up over the ranks, or keeps them for the micro-batch after it."""
    for root in model_roots(model):
        if isinstance(root, FSDPModule):
            root.set_requires_gradient_sync(now)


def local(tensor: Tensor) -> Tensor:
    """This rank's shard of a tensor, which is its own memory; the tensor itself where it isn't sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_parameter(parameter: Tensor, mesh: DeviceMesh, axis: int) -> nn.Parameter:
    """This rank's shard of a parameter that `mesh` splits along `axis`; the last rank may get less."""
    part = parameter.detach().chunk(mesh.size(), dim=axis)[mesh.get_local_rank()].contiguous()
    tensor = DTensor.from_local(part, mesh, [Shard(axis)], shape=parameter.shape, stride=parameter.stride())
    return nn.Parameter(tensor, requires_grad=parameter.requires_grad)


def local_shard(whole: Tensor, like: DTensor) -> Tensor:
    """This rank's share of a tensor that every rank has, spread as `like` is; it may have more dimensions in front.

    The innermost axis of the mesh splits first, as `fully_shard` does with what is split already.
    """
    more, mesh = whole.dim() - like.dim(), like.device_mesh
    for axis in reversed(range(mesh.ndim)):
        place = like.placements[axis]
        if is_sharded(place):
            parts, rank = whole.chunk(mesh.size(axis), dim=place.dim + more), mesh.get_local_rank(axis)
            whole = parts[rank] if rank < len(parts) else whole.narrow(place.dim + more, 0, 0)
    return whole


def is_sharded(place: Placement) -> TypeGuard[Shard]:
    """Whether an axis splits a tensor, in one stretch per rank or in strides."""
    return isinstance(place, Shard | _StridedShard)


def shard_count(tensor: Tensor) -> int:
    """Over how many ranks a tensor is split; 1 = not at all."""
    if not isinstance(tensor, DTensor):
        return 1
    sizes = zip(tensor.device_mesh.shape, tensor.placements, strict=True)
    return math.prod(size for size, place in sizes if is_sharded(place))


def as_dtensor_like(like: Tensor, part: Tensor) -> Tensor:
    """This rank's `part` of a tensor that is spread as `like` is; `part` itself where that isn't."""
    if not isinstance(like, DTensor):
        return part
    return DTensor.from_local(part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())
