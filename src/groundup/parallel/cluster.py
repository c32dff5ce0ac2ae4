"""Ranks that somebody else has started: torchrun, `srun` of Slurm, or a process group that is there already.

in:  the environment that they set
out: rank 0 runs the pipeline; the others follow: they wait for the stages that share their work, and run those with it

Every rank must see the workspace under the same path.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist

from groundup.core.errors import GroundupError

PORT = 29_400
"""Where ranks meet under Slurm where MASTER_PORT doesn't say; jobs of one machine get different ones."""
FOREVER = timedelta(days=365)
"""How long a rank waits for the next stage: curating a corpus may take days."""

Result = TypeVar("Result")
Job = tuple[Callable[..., Any], tuple[Any, ...]]


@dataclass(frozen=True)
class Place:
    """Which of the cluster's ranks this process is, and where they meet."""

    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    address: str
    port: int


def found(environment: Mapping[str, str]) -> Place | None:
    """This process's place among ranks that torchrun or Slurm has started; None where it is alone.

    Raises GroundupError where a part of it is missing or is no number.
    """
    said = environment
    if int(said.get("WORLD_SIZE", "1")) > 1:
        number = _numbers(said, "torchrun")
        return Place(
            number("RANK"), number("WORLD_SIZE"), number("LOCAL_RANK"), number("LOCAL_WORLD_SIZE"),
            said.get("MASTER_ADDR", "localhost"), number("MASTER_PORT"),
        )  # fmt: skip
    if "SLURM_STEP_ID" in said and int(said.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        number = _numbers(said, "srun")
        tasks = re.match(r"\d+", said.get("SLURM_STEP_TASKS_PER_NODE", ""))
        return Place(
            number("SLURM_PROCID"), number("SLURM_STEP_NUM_TASKS"), number("SLURM_LOCALID"),
            int(tasks[0]) if tasks else 1,
            said.get("MASTER_ADDR") or first_host(said.get("SLURM_STEP_NODELIST", "localhost")),
            int(said.get("MASTER_PORT") or PORT + number("SLURM_JOB_ID") % 1000),
        )  # fmt: skip
    return None


def first_host(nodes: str) -> str:
    """The first host of Slurm's list: `gpu[003-007,012],login` -> `gpu003`."""
    match = re.match(r"([^,\[]+)(?:\[(\w+))?", nodes)
    if match is None:
        raise GroundupError(
            f"SLURM_STEP_NODELIST = {nodes!r} names no host. Set MASTER_ADDR to rank 0's host"
        )
    return match[1] + (match[2] or "")


def _numbers(said: Mapping[str, str], who: str) -> Callable[[str], int]:
    def number(name: str) -> int:
        try:
            return int(said[name])
        except (KeyError, ValueError):
            value = repr(said[name]) if name in said else "not set"
            raise GroundupError(f"this looks like a rank of {who}, but {name} is {value}") from None

    return number


class Cluster:
    """Ranks that wait for what rank 0 has to share. Used as a context; at its end rank 0 lets the others go."""

    def __init__(self, place: Place, timeout: float) -> None:
        """timeout: seconds after which a rank gives another one up."""
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
        meeting = {"MASTER_ADDR": place.address, "MASTER_PORT": place.port, "RANK": place.rank}
        os.environ.update(
            {name: str(value) for name, value in meeting.items()} | {"WORLD_SIZE": str(place.ranks)}
        )
        dist.init_process_group("cuda:nccl,cpu:gloo" if cuda else "gloo", timeout=timedelta(seconds=timeout))
        self.place = place
        self._waiting = dist.new_group(backend="gloo", timeout=FOREVER)
        self._together = True

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which runs the pipeline."""
        return self.place.rank == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._together:
            if self.leads:
                self._tell(None)
            # What gloo's threads still hold when the interpreter is torn down now and then aborts the process.
            dist.barrier(group=self._waiting)
            dist.destroy_process_group()

    def lead(self, function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
        """Call `function(*arguments)` on all ranks; returns what it gives here."""
        self._tell((function, arguments))
        self._together = False  # until it is done: whoever fails in between leaves the others where they are
        result = function(*arguments)
        self._together = True
        return result

    def follow(self) -> None:
        """Call what rank 0 shares, until it lets the others go."""
        while True:
            told: list[Job | None] = [None]
            dist.broadcast_object_list(told, src=0, group=self._waiting)
            if told[0] is None:
                return
            function, arguments = told[0]
            self._together = False
            function(*arguments)
            self._together = True

    def _tell(self, job: Job | None) -> None:
        dist.broadcast_object_list([job], src=0, group=self._waiting)
