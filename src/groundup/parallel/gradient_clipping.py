"""Gradient clipping over ranks: sums of replicated gradients, their global norm, scaling to a maximum norm.

in:  parameters with gradients, plain or sharded as DTensors; a ParallelContext
out: the global norm; gradients scaled in place
"""

from collections.abc import Iterable
from typing import cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from groundup.parallel.context import ParallelContext
from groundup.parallel.shard import is_sharded, local


def sum_replicated_gradients(model: nn.Module, parallel: ParallelContext) -> None:
    """Sum gradients of parameters replicated over the axis `tensor`: each rank has those of its own positions."""
    if parallel.mesh is None or parallel.mesh.get_group("tensor").size() == 1:
        return
    for parameter in model.parameters():
        if parameter.grad is not None and "tensor" not in _axes(parameter):
            dist.all_reduce(local(parameter.grad), group=parallel.mesh.get_group("tensor"))


def gradient_norm(parameters: Iterable[nn.Parameter], parallel: ParallelContext) -> Float[Tensor, ""]:
    """Global norm of the gradients of all ranks."""
    with_gradient = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
    if parallel.mesh is None:
        return torch.nn.utils.get_total_norm([gradient for _, gradient in with_gradient])
    # Squares are summed over a stage's own ranks first, then over the stages of the pipeline.
    squares: dict[tuple[DeviceMesh | None, tuple[str, ...]], list[Tensor]] = {}
    for parameter, gradient in with_gradient:
        mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
        square = torch.linalg.vector_norm(local(gradient).float()).square()
        squares.setdefault((mesh, _axes(parameter)), []).append(square)
    total = torch.zeros((), device=parallel.mesh.device_type)
    for (mesh, axes), values in squares.items():
        part = torch.stack(values).sum()
        for axis in axes:
            dist.all_reduce(part, group=cast(DeviceMesh, mesh).get_group(axis))
        total = total + part
    if parallel.pipeline > 1:
        dist.all_reduce(total, group=parallel.mesh.get_group("pipeline"))
    return total.sqrt()


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float, norm: Float[Tensor, ""]) -> None:
    """Scale all gradients so that their global `norm` is at most `max_norm`."""
    gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))


def _axes(tensor: Tensor) -> tuple[str, ...]:
    """Names of the mesh axes over which a tensor is sharded."""
    if not isinstance(tensor, DTensor):
        return ()
    names = tensor.device_mesh.mesh_dim_names or ()
    return tuple(name for name, place in zip(names, tensor.placements, strict=True) if is_sharded(place))
