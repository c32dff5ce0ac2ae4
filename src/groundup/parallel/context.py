"""The ranks that train one model together, as one of them sees them: who I am, what we add up, who holds which part.

in:  a process group, if this process is one of several ranks
out: World, with which one rank and many are written alike; alone, nothing here costs anything

Ranks stand in a mesh with named axes. Over `pipeline` they hold different layers and compute the same rows one after
the other (see `pipeline.py`). Over `replicate` every rank holds the same weights, over `shard` each holds its
share of every weight (hybrid sharding, Zhao et al. 2023, https://arxiv.org/abs/2304.11277); both of these read
different rows. Over `tensor` they read the same rows and compute them together (see `tensor.py`). Some of those that
shard may share rows, too, each with positions of its own (see `context.py`), and some may hold different experts
(see `expert.py`).
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
"""How this process gives a sign of life to whoever looks after it."""


@dataclass(frozen=True)
class ParallelContext:
    """This process among the ranks of a training."""

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None
    """axes pipeline, replicate, shard and tensor; None = alone"""
    expert_mesh: DeviceMesh | None = None
    """the same ranks with the axes pipeline, replicate, rest, expert and tensor; None = every rank has all experts"""
    cp_group: dist.ProcessGroup | None = None
    """the ranks that share the positions of this one's rows; None = it has all of them"""
    background_group: dist.ProcessGroup | None = None
    """all ranks once more, for what a thread of theirs does beside a training step"""

    @property
    def is_rank0(self) -> bool:
        """Whether this rank is the one that writes logs and speaks."""
        return self.rank == 0

    @property
    def dp_size(self) -> int:
        """How many parts a step's rows are cut into: ranks that share matrices or positions read the same rows."""
        return self.size // self.pipeline // self.axis_size("tensor") // self.cp_size

    @property
    def dp_rank(self) -> int:
        """Which of these parts is this rank's."""
        return self.rank % (self.size // self.pipeline) // (self.axis_size("tensor") * self.cp_size)

    @property
    def pipeline(self) -> int:
        """How many ranks have the layers of one model."""
        return self.axis_size("pipeline")

    @property
    def stage(self) -> int:
        """This rank's place in the pipeline, from 0."""
        return 0 if self.mesh is None else self.mesh.get_local_rank("pipeline")

    @property
    def is_last_stage(self) -> bool:
        """Whether this rank has the last layer, and so the loss."""
        return self.stage == self.pipeline - 1

    def axis_size(self, name: str) -> int:
        """How many ranks stand along an axis of the mesh."""
        return 1 if self.mesh is None else self.mesh.get_group(name).size()

    @property
    def cp_size(self) -> int:
        return 1 if self.cp_group is None else self.cp_group.size()

    def positions(self, time: int) -> slice:
        """This rank's positions of rows that have `time` of them. Raises GroundupError where they can't be shared."""
        if self.cp_group is None:
            return slice(0, time)
        if time % self.cp_size:
            raise GroundupError(
                f"runtime.layout.context = {self.cp_size} does not divide the {time} positions of a row. "
                "Make tokenize.seq_len a multiple of it"
            )
        each, rank = time // self.cp_size, dist.get_rank(self.cp_group)
        return slice(rank * each, (rank + 1) * each)

    def sum(self, values: Tensor) -> Tensor:
        """Element by element over all ranks that read different rows, in place: the same bits on each."""
        if self.mesh is not None:
            for axis in ("shard", "replicate"):
                dist.all_reduce(values, group=self.mesh.get_group(axis))
        return values

    def sum_tokens(self, counts: Tensor) -> Tensor:
        """As `sum`, of what each rank counts of its own positions."""
        if self.axis_size("tensor") > 1:
            assert self.mesh is not None
            dist.all_reduce(counts, group=self.mesh.get_group("tensor"))
        return self.sum(counts)

    def sum_all_stages(self, values: Tensor) -> Tensor:
        """As `sum`, of all stages of a pipeline together: what isn't a stage's to say must be zero there."""
        self.sum(values)
        if self.mesh is not None and self.pipeline > 1:
            dist.all_reduce(values, group=self.mesh.get_group("pipeline"))
        return values

    def any(self, *flags: bool) -> list[bool]:
        """What at least one rank says of each question: the same on all."""
        if self.mesh is None:
            return list(flags)
        counts = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(counts)
        return [bool(count) for count in counts.tolist()]

    def broadcast_object(self, compute: Callable[[], T]) -> T:
        """What `find` gives on the rank that leads, on all of them; it is called there alone.

        May be called by a thread beside the training.
        """
        if self.mesh is None:
            return compute()
        payload = [compute() if self.is_rank0 else None]
        dist.broadcast_object_list(payload, src=0, group=self.background_group)
        return payload[0]  # type: ignore[return-value]

    def gather_dicts(self, local_dict: dict[str, T]) -> dict[str, T]:
        """What all stages of a pipeline say, in one; may be called by a thread beside the training."""
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
        """This rank's part of `count` rows, which must divide by `readers`."""
        each = count // self.dp_size
        return slice(self.dp_rank * each, (self.dp_rank + 1) * each)


SINGLE = ParallelContext()


def check_layout(layout: Layout, ranks: int) -> None:
    """Raises GroundupError where the layout's axes don't fit so many ranks."""
    whole = layout.pipeline * layout.replicate * layout.tensor
    shared = ranks // whole
    if ranks % (whole * layout.context):
        raise GroundupError(
            f"runtime.layout: pipeline x replicate x context x tensor = {layout.pipeline} x {layout.replicate} x "
            f"{layout.context} x {layout.tensor} = {whole * layout.context} does not divide the number of ranks, "
            f"{ranks} (runtime.ranks). It must; what it leaves is sharded"
        )
    if shared % layout.expert:
        raise GroundupError(
            f"runtime.layout.expert = {layout.expert} does not divide the {shared} ranks that share weights "
            f"(all of them "
            "over pipeline x replicate x tensor)"
        )


def current_context(layout: Layout, device: torch.device) -> ParallelContext:
    """The world this process is in. Raises GroundupError where the layout doesn't fit its ranks."""
    size = dist.get_world_size() if dist.is_initialized() else 1
    if size == 1:
        return SINGLE
    check_layout(layout, size)

    def mesh(**axes: int) -> DeviceMesh:
        return init_device_mesh(device.type, tuple(axes.values()), mesh_dim_names=tuple(axes))

    # Ranks that share positions learn from different ones: for weights and gradients they are like those that shard.
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
    # Ranks that are only simulated have nobody to talk to.
    background_group = None if dist.get_backend() == "fake" else dist.new_group(backend="gloo")
    return ParallelContext(dist.get_rank(), size, plain, expert_mesh, cp_group, background_group)


@contextmanager
def join_ranks(
    rank: int, ranks: int, folder: Path, timeout: float, heartbeat_fn: HeartbeatFn
) -> Iterator[None]:
    """Be one of `ranks` ranks on this machine that meet in `folder`, an empty one that all of them see.

    timeout: seconds after which a rank that waits for another one gives up.
    sign: called with the step at every sign of life.
    """
    set_heartbeat(heartbeat_fn)
    if torch.cuda.is_available():
        torch.cuda.set_device(rank % torch.cuda.device_count())
    backend = "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend, f"file://{folder}/meeting", timedelta(seconds=timeout), world_size=ranks, rank=rank
    )
    try:
        yield
        dist.barrier()
    finally:
        set_heartbeat(None)


def set_heartbeat(heartbeat_fn: HeartbeatFn | None) -> None:
    """Whom `alive` tells from now on."""
    global _heartbeat_fn
    _heartbeat_fn = heartbeat_fn


def heartbeat(step: int | None = None) -> None:
    """A sign of life for whoever looks after the ranks, once per step or oftener. step: the one that is done."""
    if _heartbeat_fn is not None:
        _heartbeat_fn(step)


def heartbeat_into(heartbeats: MutableSequence[float], rank: int) -> HeartbeatFn:
    """A sign that writes step and time into the rank's two places in `stands`."""

    def write_heartbeat(step: int | None) -> None:
        heartbeats[2 * rank : 2 * rank + 2] = [heartbeats[2 * rank] if step is None else step, time.time()]

    return write_heartbeat
