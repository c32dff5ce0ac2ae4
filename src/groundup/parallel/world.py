"""The ranks that train one model together, as one of them sees them: who I am, what we add up, who holds which part.

in:  a process group, if this process is one of several ranks
out: World, with which one rank and many are written alike; alone, nothing here costs anything

Ranks stand in a mesh with named axes. Over `replicate` every rank holds the same weights, over `shard` each holds its
share of every weight (hybrid sharding, Zhao et al. 2023, https://arxiv.org/abs/2304.11277); all of these read different
rows. Over `tensor` they read the same rows and compute them together (see `tensor.py`). Some of those that shard may
share rows, too, each with positions of its own (see `context.py`), and some may hold different experts
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
from groundup.core.recipe import Layout

Told = TypeVar("Told")

Sign = Callable[[int | None], None]

_sign: Sign | None = None
"""How this process gives a sign of life to whoever looks after it."""


@dataclass(frozen=True)
class World:
    """This process among the ranks of a training."""

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None
    """axes replicate, shard and tensor; None = alone"""
    experts: DeviceMesh | None = None
    """the same ranks with the axes replicate, rest, expert and tensor; None = every rank has all experts"""
    context: dist.ProcessGroup | None = None
    """the ranks that share the positions of this one's rows; None = it has all of them"""
    aside: dist.ProcessGroup | None = None
    """all ranks once more, for what a thread of theirs does beside a training step"""

    @property
    def leads(self) -> bool:
        """Whether this rank is the one that writes logs and speaks."""
        return self.rank == 0

    @property
    def readers(self) -> int:
        """How many parts a step's rows are cut into: ranks that share matrices or positions read the same rows."""
        return self.size if self.mesh is None else self.size // self.mesh["tensor"].size() // self._contexts

    @property
    def reader(self) -> int:
        """Which of these parts is this rank's."""
        return self.rank // (self.size // self.readers)

    @property
    def _contexts(self) -> int:
        return 1 if self.context is None else self.context.size()

    def positions(self, time: int) -> slice:
        """This rank's positions of rows that have `time` of them. Raises GroundupError where they can't be shared."""
        if self.context is None:
            return slice(0, time)
        if time % self._contexts:
            raise GroundupError(
                f"site.layout.context = {self._contexts} does not divide the {time} positions of a row. "
                "Make tokenize.seq_len a multiple of it"
            )
        each, mine = time // self._contexts, dist.get_rank(self.context)
        return slice(mine * each, (mine + 1) * each)

    def sum(self, values: Tensor) -> Tensor:
        """Element by element over all ranks that read different rows, in place: the same bits on each."""
        if self.mesh is not None:
            for axis in ("shard", "replicate"):
                dist.all_reduce(values, group=self.mesh.get_group(axis))
        return values

    def any(self, *said: bool) -> list[bool]:
        """What at least one rank says of each question: the same on all."""
        if self.mesh is None:
            return list(said)
        counts = torch.tensor(said, dtype=torch.int32)
        dist.all_reduce(counts)
        return [bool(count) for count in counts.tolist()]

    def told_by_leader(self, find: Callable[[], Told]) -> Told:
        """What `find` gives on the rank that leads, on all of them; it is called there alone.

        May be called by a thread beside the training.
        """
        if self.mesh is None:
            return find()
        told = [find() if self.leads else None]
        dist.broadcast_object_list(told, src=0, group=self.aside)
        return told[0]  # type: ignore[return-value]

    def share(self, count: int) -> slice:
        """This rank's part of `count` rows, which must divide by `readers`."""
        each = count // self.readers
        return slice(self.reader * each, (self.reader + 1) * each)


ALONE = World()


def check(layout: Layout, ranks: int) -> None:
    """Raises GroundupError where the layout's axes don't fit so many ranks."""
    taken = layout.replicate * layout.context * layout.tensor
    shared = ranks // layout.replicate // layout.tensor
    if ranks % taken == 0 and shared % layout.expert:
        raise GroundupError(
            f"site.layout.expert = {layout.expert} does not divide the {shared} ranks that share weights (all of them "
            "over replicate x tensor)"
        )
    if ranks % taken:
        raise GroundupError(
            f"site.layout: replicate x context x tensor = {layout.replicate} x {layout.context} x {layout.tensor} = "
            f"{taken} does not divide the number of ranks, {ranks} (site.ranks). It must; what it leaves is sharded"
        )


def here(layout: Layout, device: torch.device) -> World:
    """The world this process is in. Raises GroundupError where the layout doesn't fit its ranks."""
    if not dist.is_initialized():
        return ALONE
    size = dist.get_world_size()
    check(layout, size)
    # Ranks that share positions learn from different ones: for weights and gradients they are like those that shard.
    axes = {
        "replicate": layout.replicate,
        "shard": size // layout.replicate // layout.tensor,
        "tensor": layout.tensor,
    }
    mesh = init_device_mesh(device.type, tuple(axes.values()), mesh_dim_names=tuple(axes))
    context = None
    if layout.context > 1:
        shape = (size // layout.context // layout.tensor, layout.context, layout.tensor)
        context = init_device_mesh(device.type, shape, mesh_dim_names=("rows", "context", "same")).get_group(
            "context"
        )
    experts = None
    if layout.expert > 1:
        parts = axes["replicate"], axes["shard"] // layout.expert, layout.expert, axes["tensor"]
        experts = init_device_mesh(
            device.type, parts, mesh_dim_names=("replicate", "rest", "expert", "tensor")
        )
    return World(dist.get_rank(), size, mesh, experts, context, dist.new_group(backend="gloo"))


@contextmanager
def join(rank: int, ranks: int, folder: Path, timeout: float, sign: Sign) -> Iterator[None]:
    """Be one of `ranks` ranks on this machine that meet in `folder`, an empty one that all of them see.

    timeout: seconds after which a rank that waits for another one gives up.
    sign: called with the step at every sign of life.
    """
    set_sign(sign)
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
        set_sign(None)


def set_sign(sign: Sign | None) -> None:
    """Whom `alive` tells from now on."""
    global _sign
    _sign = sign


def alive(step: int | None = None) -> None:
    """A sign of life for whoever looks after the ranks, once per step or oftener. step: the one that is done."""
    if _sign is not None:
        _sign(step)


def stand_at(stands: MutableSequence[float], rank: int) -> Sign:
    """A sign that writes step and time into the rank's two places in `stands`."""

    def sign(step: int | None) -> None:
        stands[2 * rank : 2 * rank + 2] = [stands[2 * rank] if step is None else step, time.time()]

    return sign
