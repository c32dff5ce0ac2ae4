"""Communication volume: bytes that a rank sends, by layout axis and kind of collective.

in:  a ParallelContext, and code run inside `with CommVolume(parallel) as volume`
out: volume.sent: (axis, kind) -> bytes

Counted is what leaves a rank when a collective goes round in a ring, the way of NCCL and gloo with large tensors
(Patarasuk and Yuan 2009, https://doi.org/10.1016/j.jpdc.2008.09.002): of n ranks, each passes on its part n - 1 times;
an all-reduce is a reduce-scatter and an all-gather.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import _resolve_process_group
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from groundup.parallel.context import ParallelContext

COLLECTIVES = {"allreduce": "all_reduce", "allgather": "all_gather", "reducescatter": "reduce_scatter",
         "alltoall": "all_to_all", "broadcast": "broadcast", "send": "send", "isend": "send"}  # fmt: skip
"""Prefix of an operator's name, without underscores -> kind of collective. Receiving sends nothing."""
SENT_ARGUMENTS = {"input", "inputs", "input_tensor", "input_tensors", "input_list", "tensors", "tensor"}
"""Names of the operators' input arguments."""


class CommGroup(NamedTuple):
    """A process group of this rank and its axis."""

    axis: str
    """of the layout; "all" for the default group"""
    ranks: dist.ProcessGroup


class Collective(NamedTuple):
    """One collective call of this rank."""

    kind: str
    sent: int
    """bytes that leave this rank"""
    group: str
    """name of its process group"""


def comm_groups(parallel: ParallelContext) -> dict[str, CommGroup]:
    """This rank's process groups of more than one rank, by name, in the same order on all ranks.

    What weights of experts are sharded over is "shard", too. Axes that have the same ranks are one group, and all
    counts for the first of them.
    """
    groups: dict[str, CommGroup] = {}

    def add(axis: str, ranks: dist.ProcessGroup | None) -> None:
        if ranks is not None and ranks.size() > 1:
            groups.setdefault(ranks.group_name, CommGroup(axis, ranks))

    for mesh in (parallel.mesh, parallel.expert_mesh):
        for axis in () if mesh is None else mesh.mesh_dim_names or ():
            add("shard" if axis == "rest" else axis, mesh.get_group(axis))  # type: ignore[union-attr]
    add("context", parallel.cp_group)
    add("all", None if parallel.mesh is None else dist.group.WORLD)
    return groups


class CommVolume(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that this rank sends."""

    supports_higher_order_operators = True

    def __init__(self, parallel: ParallelContext) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sent: dict[tuple[str, str], int] = defaultdict(int)
        """(axis, kind) -> bytes"""
        self._groups = comm_groups(parallel)

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Compiled code stays compiled: its collectives are counted, too."""
        return True

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # comes again, as operations on this rank's share
        kwargs = kwargs or {}
        message = self._collective(function, args, kwargs)
        if message is None:
            return function(*args, **kwargs)
        self.sent[self._groups[message.group].axis, message.kind] += message.sent
        return self._run_collective(message, lambda: function(*args, **kwargs))

    def _run_collective(self, message: Collective, call: Callable[[], Any]) -> Any:
        return call()

    def _collective(self, function: Any, args: Any, kwargs: Any) -> Collective | None:
        """The collective of an operator call; None for other operators and for groups of one rank."""
        if getattr(function, "namespace", "") not in ("c10d", "_c10d_functional"):
            return None
        name = function.overloadpacket.__name__.replace("_", "")
        kind = next((kind for begin, kind in COLLECTIVES.items() if name.startswith(begin)), None)
        if kind is None:
            return None
        arguments = bind_arguments(function, args, kwargs)
        group = _group(arguments)
        return (
            Collective(kind, _bytes_sent(kind, group, arguments), group.group_name)
            if group.size() > 1
            else None
        )


def bind_arguments(function: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """An operator's arguments by the names of its schema, without defaults."""
    names = (argument.name for argument in function._schema.arguments)
    return dict(zip(names, args, strict=False)) | (kwargs or {})


def _group(arguments: dict[str, Any]) -> dist.ProcessGroup:
    if "process_group" in arguments:
        return dist.ProcessGroup.unbox(arguments["process_group"])
    return _resolve_process_group(arguments["group_name"])


def _bytes_sent(kind: str, group: dist.ProcessGroup, arguments: dict[str, Any]) -> int:
    ranks = group.size()
    inputs = next(value for name, value in arguments.items() if name in SENT_ARGUMENTS)
    size = sum(part.numel() * part.itemsize for part in tree_leaves(inputs) if isinstance(part, Tensor))
    splits: list[int] = list(arguments.get("input_split_sizes") or ())
    if kind == "all_to_all" and splits:
        return size - size * splits[dist.get_rank(group)] // max(1, sum(splits))
    if kind == "all_gather":
        return size * (ranks - 1)
    if kind == "send":
        return size
    return (2 if kind == "all_reduce" else 1) * size * (ranks - 1) // ranks
