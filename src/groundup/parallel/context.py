"""Parallel context: this process's rank, its device meshes and groups, and reductions over them.

in:  a process group, where this process is one of several ranks
out: ParallelContext, with which code for one rank and for many is the same; on one rank its calls cost nothing

Ranks form a mesh with named axes. Ranks of `pipeline` hold different layers (see `pipeline_parallel.py`). Ranks of
`replicate` hold the same weights, ranks of `shard` a shard of every weight (hybrid sharding, Zhao et al. 2023,
https://arxiv.org/abs/2304.11277); both read different sequences. Ranks of `tensor` compute the same sequences together
(see `tensor_parallel.py`). Ranks that shard may also split positions (see `context_parallel.py`) or experts (see
`expert_parallel.py`).
"""

import time
from collections.abc import Callable, Iterator, MutableSequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from groundup.core.errors import GroundupError
from groundup.core.runtime import Layout

T = TypeVar("T")

HeartbeatFn = Callable[[int | None], None]

_heartbeat_fn: HeartbeatFn | None = None
"""Receives this process's heartbeats; None = there is no watchdog."""


@dataclass(frozen=True)
class ParallelContext:
    """This process among the ranks of a training."""

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None
    """axes pipeline, replicate, shard and tensor; None = one rank"""
    expert_mesh: DeviceMesh | None = None
    """the same ranks with the axes pipeline, replicate, rest, expert and tensor; None = every rank has all experts"""
    cp_group: dist.ProcessGroup | None = None
    """the ranks that split the positions of this rank's sequences; None = it has all positions"""
    background_group: dist.ProcessGroup | None = None
    """all ranks once more, for what a thread of theirs does beside a training step"""

    @property
    def is_rank0(self) -> bool:
        """Whether this is the rank that writes logs and messages."""
        return self.rank == 0

    @property
    def dp_size(self) -> int:
        """Data parallel size: number of parts of a batch. Ranks of tensor, context and pipeline read the same part."""
        return self.size // self.pipeline // self.axis_size("tensor") // self.cp_size

    @property
    def dp_rank(self) -> int:
        """Index of this rank's part of a batch."""
        return self.rank % (self.size // self.pipeline) // (self.axis_size("tensor") * self.cp_size)

    @property
    def pipeline(self) -> int:
        """Pipeline parallel size."""
        return self.axis_size("pipeline")

    @property
    def stage(self) -> int:
        """This rank's pipeline index, from 0."""
        return 0 if self.mesh is None else self.mesh.get_local_rank("pipeline")

    @property
    def is_last_stage(self) -> bool:
        """Whether this rank has the last layer and computes the loss."""
        return self.stage == self.pipeline - 1

    def axis_size(self, name: str) -> int:
        """Number of ranks along an axis of the mesh."""
        return 1 if self.mesh is None else self.mesh.get_group(name).size()

    @property
    def cp_size(self) -> int:
        return 1 if self.cp_group is None else self.cp_group.size()

    def positions(self, time: int) -> slice:
        """This rank's positions of sequences of length `time`, which the axis must divide (GroundupError)."""
        if self.cp_group is None:
            return slice(0, time)
        if time % self.cp_size:
            raise GroundupError(
                f"runtime.layout.context = {self.cp_size} does not divide the sequence length {time}. "
                "Make tokenize.seq_len a multiple of it"
            )
        each, rank = time // self.cp_size, dist.get_rank(self.cp_group)
        return slice(rank * each, (rank + 1) * each)

    def sum(self, values: Tensor) -> Tensor:
        """All-reduce (sum) over the data parallel ranks, in place; bit-identical on all ranks."""
        if self.mesh is not None:
            for axis in ("shard", "replicate"):
                dist.all_reduce(values, group=self.mesh.get_group(axis))
        return values

    def sum_tokens(self, counts: Tensor) -> Tensor:
        """As `sum`, also over ranks that split positions under tensor parallel."""
        if self.axis_size("tensor") > 1:
            assert self.mesh is not None
            dist.all_reduce(counts, group=self.mesh.get_group("tensor"))
        return self.sum(counts)

    def sum_all_stages(self, values: Tensor) -> Tensor:
        """As `sum`, also over pipeline stages; values of other stages must be zero."""
        self.sum(values)
        if self.mesh is not None and self.pipeline > 1:
            dist.all_reduce(values, group=self.mesh.get_group("pipeline"))
        return values

    def any(self, *flags: bool) -> list[bool]:
        """Each flag's logical or over all ranks."""
        if self.mesh is None:
            return list(flags)
        counts = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(counts)
        return [bool(count) for count in counts.tolist()]

    def broadcast_object(self, compute: Callable[[], T]) -> T:
        """The result of `compute`, which is called on rank 0 alone, on all ranks.

        May be called from a background thread.
        """
        if self.mesh is None:
            return compute()
        payload = [compute() if self.is_rank0 else None]
        dist.broadcast_object_list(payload, src=0, group=self.background_group)
        return payload[0]  # type: ignore[return-value]

    def gather_dicts(self, local_dict: dict[str, T]) -> dict[str, T]:
        """The union of all pipeline stages' dicts; may be called from a background thread."""
        if self.pipeline == 1:
            return local_dict
        gathered: list[dict[str, T]] = [{} for _ in range(self.size)]
        dist.all_gather_object(gathered, local_dict, group=self.background_group)
        return {name: value for each in gathered for name, value in each.items()}

    def gather_dp(self, value: T) -> list[T]:
        """The values of all data-parallel ranks, in their order, the same on all ranks."""
        if self.mesh is None:
            return [value]
        gathered: list[T] = [value] * self.size
        dist.all_gather_object(gathered, value)
        # Ranks that share rows compute the same; the value of the first of them is used.
        group_size = self.axis_size("tensor") * self.cp_size
        return gathered[: group_size * self.dp_size : group_size]

    def dp_slice(self, count: int) -> slice:
        """This rank's part of `count` sequences, a multiple of `dp_size`."""
        each = count // self.dp_size
        return slice(self.dp_rank * each, (self.dp_rank + 1) * each)


SINGLE = ParallelContext()


def check_layout(layout: Layout, ranks: int) -> None:
    """Raises GroundupError where the layout's axes don't divide the number of ranks."""
    whole = layout.pipeline * layout.replicate * layout.tensor
    shared = ranks // whole
    if ranks % (whole * layout.context):
        raise GroundupError(
            f"runtime.layout: pipeline x replicate x context x tensor = {layout.pipeline} x {layout.replicate} x "
            f"{layout.context} x {layout.tensor} = {whole * layout.context} does not divide the number of ranks, "
            f"{ranks} (runtime.ranks). The remaining ranks shard the model"
        )
    if shared % layout.expert:
        raise GroundupError(
            f"runtime.layout.expert = {layout.expert} does not divide the {shared} ranks that share weights "
            f"(all of them "
            "over pipeline x replicate x tensor)"
        )


def current_context(layout: Layout, device: torch.device) -> ParallelContext:
    """The parallel context of this process. Raises GroundupError where the layout doesn't fit its ranks."""
    size = dist.get_world_size() if dist.is_initialized() else 1
    if size == 1:
        return SINGLE
    check_layout(layout, size)

    def mesh(**axes: int) -> DeviceMesh:
        return init_device_mesh(device.type, tuple(axes.values()), mesh_dim_names=tuple(axes))

    # Ranks that split positions have different tokens: weights and gradients treat them like ranks that shard.
    stages, copies, tensor = layout.pipeline, layout.replicate, layout.tensor
    shared = size // stages // copies // tensor
    plain = mesh(pipeline=stages, replicate=copies, shard=shared, tensor=tensor)
    cp_group = expert_mesh = None
    if layout.context > 1:
        rows = size // layout.context // tensor
        cp_group = mesh(rows=rows, context=layout.context, same=tensor).get_group("context")
    if layout.expert > 1:
        rest = shared // layout.expert
        expert_mesh = mesh(pipeline=stages, replicate=copies, rest=rest, expert=layout.expert, tensor=tensor)
    # Simulated ranks have no background group.
    background_group = None if dist.get_backend() == "fake" else dist.new_group(backend="gloo")
    return ParallelContext(dist.get_rank(), size, plain, expert_mesh, cp_group, background_group)


@contextmanager
def join_ranks(
    rank: int, ranks: int, folder: Path, timeout: float, heartbeat_fn: HeartbeatFn
) -> Iterator[None]:
    """Join `ranks` ranks of this machine, which rendezvous in `folder`, an empty one.

    timeout: seconds after which a collective fails.
    heartbeat_fn: called with the step at every heartbeat.
    """
    set_heartbeat(heartbeat_fn)
    if torch.cuda.is_available():
        torch.cuda.set_device(rank % torch.cuda.device_count())
    backend = "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend, f"file://{folder}/rendezvous", timedelta(seconds=timeout), world_size=ranks, rank=rank
    )
    try:
        yield
        dist.barrier()
    finally:
        set_heartbeat(None)


def set_heartbeat(heartbeat_fn: HeartbeatFn | None) -> None:
    """Set the receiver of heartbeats."""
    global _heartbeat_fn
    _heartbeat_fn = heartbeat_fn


def heartbeat(step: int | None = None) -> None:
    """Send a heartbeat to the watchdog, at least once per step. step: the last completed one."""
    if _heartbeat_fn is not None:
        _heartbeat_fn(step)


def heartbeat_into(heartbeats: MutableSequence[float], rank: int) -> HeartbeatFn:
    """A receiver that writes step and time into the rank's two entries of `heartbeats`."""

    def write_heartbeat(step: int | None) -> None:
        heartbeats[2 * rank : 2 * rank + 2] = [heartbeats[2 * rank] if step is None else step, time.time()]

    return write_heartbeat
