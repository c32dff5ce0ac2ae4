"""Ranks that somebody else has started: torchrun, `srun` of Slurm, or whatever sets the variables of one of them.

in:  the environment that they set
out: rank 0 runs the pipeline; the others follow: they wait for the stages that share their work, and run those with it

Every rank must see the workspace under the same path. Who started the ranks starts them again: a rank that is well but
for another one leaves with status 75.
"""

import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

from groundup.core.errors import GroundupError
from groundup.parallel.launcher import CONNECTION_LOST, LOST_CONNECTION, START_SECONDS, error_location
from groundup.parallel.rendezvous import RankAddress, RendezvousError, open_store, rendezvous, store_owner
from groundup.parallel.watchdog import EXIT_RESTART, Watchdog

PORT = 29_400
"""Where ranks meet under Slurm where MASTER_PORT doesn't say; jobs of one machine get different ones."""
IDLE_TIMEOUT = timedelta(days=365)
"""How long a rank waits for the next stage: curating a corpus may take days."""

Result = TypeVar("Result")
SharedCall = tuple[Callable[..., Any], tuple[Any, ...]]


def detect_launch(environment: Mapping[str, str]) -> RankAddress | None:
    """This process's place among ranks that torchrun or Slurm has started; None where it is alone.

    Raises GroundupError where a part of it is missing or is no number.
    """
    said = environment
    # torchrun may have one rank left.
    if int(said.get("WORLD_SIZE", "1")) > 1 or "TORCHELASTIC_RUN_ID" in said:
        number = _numbers(said, "torchrun")
        return RankAddress(
            number("RANK"), number("WORLD_SIZE"), number("LOCAL_RANK"), number("LOCAL_WORLD_SIZE"),
            said.get("MASTER_ADDR", "localhost"), number("MASTER_PORT"),
        )  # fmt: skip
    if "SLURM_STEP_ID" in said and int(said.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        number = _numbers(said, "srun")
        tasks = re.match(r"\d+", said.get("SLURM_STEP_TASKS_PER_NODE", ""))
        return RankAddress(
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


class ExternalLaunch:
    """Ranks that wait for what rank 0 has to share. Used as a context; at its end rank 0 lets the others go."""

    def __init__(self, place: RankAddress, timeout: float) -> None:
        """timeout: seconds after which a rank gives another one up. They leave where they don't meet in that time."""
        if torch.cuda.is_available():
            torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
            torch.cuda.init()  # type: ignore[no-untyped-call]  # or a mesh of devices chooses one by LOCAL_RANK
        self.place, self._timeout, self._in_sync = place, timeout, True
        before = signal.getsignal(signal.SIGTERM)
        _default_sigterm()
        with self._exit_on_lost_connection():
            store, word = rendezvous(place, timeout)
            backend = "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo"
            # Whoever waits for a rank that stands still is told to give up later than that rank is found out.
            dist.init_process_group(
                backend, store=store, rank=place.rank, world_size=place.ranks,
                timeout=timedelta(seconds=timeout + max(timeout, START_SECONDS)),
            )  # fmt: skip
            self._waiting = dist.new_group(backend="gloo", timeout=IDLE_TIMEOUT)
        if self.leads and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
        self._word, self._calls = word, 0

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which runs the pipeline."""
        return self.place.rank == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._in_sync:
            with self._exit_on_lost_connection():
                if self.leads:
                    self._broadcast_call(exit_status(error))
                # What gloo's threads still hold when the interpreter is torn down now and then aborts the process.
                dist.barrier(group=self._waiting)
                dist.destroy_process_group()

    def run_shared(self, function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
        """Call `function(*arguments)` on all ranks; returns what it gives here."""
        with self._exit_on_lost_connection():
            self._broadcast_call((function, arguments))
        return self._call_with_watchdog(function, arguments)

    def follow(self) -> None:
        """Call what rank 0 shares, until it lets the others go. Raises SystemExit with its status where it failed."""
        while True:
            told: list[SharedCall | int] = [0]
            with self._exit_on_lost_connection():
                dist.broadcast_object_list(told, src=0, group=self._waiting)
            if told[0] == 0:
                return
            if isinstance(told[0], int):
                raise SystemExit(told[0])
            self._call_with_watchdog(*told[0])

    def _call_with_watchdog(self, function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
        self._calls += 1
        self._in_sync = False  # until it is done: whoever fails in between leaves the others where they are
        word = f"{self._word}/lookout-{self._calls}"

        def store() -> Store:
            return PrefixStore(word, open_store(self.place, self._timeout))

        address = self.place
        with (
            self._exit_on_lost_connection(),
            Watchdog(store, store_owner(address), address.rank, address.ranks, self._timeout),
        ):
            result = function(*arguments)
        self._in_sync = True
        return result

    def _broadcast_call(self, job: SharedCall | int) -> None:
        dist.broadcast_object_list([job], src=0, group=self._waiting)

    @contextmanager
    def _exit_on_lost_connection(self) -> Iterator[None]:
        """Leave with one line where another rank is gone, rather than with the traceback of whoever noticed it."""
        try:
            yield
        except Exception as error:
            text = f"rank {self.place.rank} {LOST_CONNECTION} in {error_location(error)}"
            if isinstance(error, RendezvousError):
                text = str(error)
            elif isinstance(error, GroundupError) or not CONNECTION_LOST.search(str(error)):
                raise
            print(f"groundup: {text}", file=sys.stderr)
            self._in_sync = False
            _default_sigterm()
            raise SystemExit(EXIT_RESTART) from None


def exit_status(error: BaseException | None) -> int:
    """The exit status of rank 0, which that of the others should be."""
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return 0 if error is None else 2 if isinstance(error, GroundupError) else 1


def _default_sigterm() -> None:
    """From now on SIGTERM ends this process also while its main thread waits for other ranks; it saves nothing then."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
