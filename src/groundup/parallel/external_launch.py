"""External launch: ranks that torchrun, Slurm's `srun` or another launcher has started.

in:  the environment variables that the launcher sets
out: rank 0 runs the pipeline; the other ranks wait for stages that run on all ranks, and run those with it

All ranks must see the workspace under the same path. The launcher restarts the ranks: a rank that ends because of
another one exits with status 75.
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
from groundup.core.os_errors import explain
from groundup.parallel.launcher import CONNECTION_LOST, LOST_CONNECTION, START_SECONDS, error_location
from groundup.parallel.rendezvous import RankAddress, RendezvousError, open_store, rendezvous, store_owner
from groundup.parallel.watchdog import EXIT_RESTART, Watchdog

PORT = 29_400
"""Base of the store's port under Slurm without MASTER_PORT; the jobs of one machine get different ports."""
IDLE_TIMEOUT = timedelta(days=365)
"""Time that a rank waits for the next stage: curating a corpus may take days."""

Result = TypeVar("Result")
SharedCall = tuple[Callable[..., Any], tuple[Any, ...]]


def detect_launch(environment: Mapping[str, str]) -> RankAddress | None:
    """This process's rank among those that torchrun or Slurm has started; None where there are no others.

    Raises GroundupError where one of the variables is missing or not a number.
    """
    # torchrun may have restarted with a single rank.
    if int(environment.get("WORLD_SIZE", "1")) > 1 or "TORCHELASTIC_RUN_ID" in environment:
        number = _numbers(environment, "torchrun")
        return RankAddress(
            number("RANK"), number("WORLD_SIZE"), number("LOCAL_RANK"), number("LOCAL_WORLD_SIZE"),
            environment.get("MASTER_ADDR", "localhost"), number("MASTER_PORT"),
        )  # fmt: skip
    if "SLURM_STEP_ID" in environment and int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        number = _numbers(environment, "srun")
        tasks = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
        return RankAddress(
            number("SLURM_PROCID"), number("SLURM_STEP_NUM_TASKS"), number("SLURM_LOCALID"),
            int(tasks[0]) if tasks else 1,
            environment.get("MASTER_ADDR") or first_host(environment.get("SLURM_STEP_NODELIST", "localhost")),
            int(environment.get("MASTER_PORT") or PORT + number("SLURM_JOB_ID") % 1000),
        )  # fmt: skip
    return None


def first_host(nodes: str) -> str:
    """The first host of Slurm's list: `gpu[003-007,012],login` -> `gpu003`."""
    match = re.match(r"([^,\[]+)(?:\[(\w+))?", nodes)
    if match is None:
        raise GroundupError(
            f"SLURM_STEP_NODELIST = {nodes!r} has no host name. Set MASTER_ADDR to the host of rank 0"
        )
    return match[1] + (match[2] or "")


def _numbers(environment: Mapping[str, str], who: str) -> Callable[[str], int]:
    def number(name: str) -> int:
        try:
            return int(environment[name])
        except (KeyError, ValueError):
            value = repr(environment[name]) if name in environment else "not set"
            raise GroundupError(f"started by {who}, but the variable {name} is {value}") from None

    return number


class ExternalLaunch:
    """Ranks that wait for calls of rank 0; a context manager, at whose end rank 0 ends the others."""

    def __init__(self, place: RankAddress, timeout: float) -> None:
        """timeout: seconds for the rendezvous, and without progress until a rank counts as hanging."""
        if torch.cuda.is_available():
            torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
            torch.cuda.init()  # type: ignore[no-untyped-call]  # or a mesh of devices chooses one by LOCAL_RANK
        self.place, self._timeout, self._in_sync = place, timeout, True
        before = signal.getsignal(signal.SIGTERM)
        _default_sigterm()
        with self._exit_on_lost_connection():
            store, prefix = rendezvous(place, timeout)
            backend = "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo"
            # Collectives time out later than a hanging rank is detected.
            dist.init_process_group(
                backend, store=store, rank=place.rank, world_size=place.ranks,
                timeout=timedelta(seconds=timeout + max(timeout, START_SECONDS)),
            )  # fmt: skip
            self._waiting = dist.new_group(backend="gloo", timeout=IDLE_TIMEOUT)
        if self.is_rank0 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
        self._prefix, self._calls = prefix, 0

    @property
    def is_rank0(self) -> bool:
        """Whether this is rank 0, which runs the pipeline."""
        return self.place.rank == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._in_sync:
            with self._exit_on_lost_connection():
                if self.is_rank0:
                    self._broadcast_call(exit_status(error))
                # Threads of gloo that are alive at interpreter exit abort the process now and then.
                dist.barrier(group=self._waiting)
                dist.destroy_process_group()

    def run_shared(self, function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
        """Call `function(*arguments)` on all ranks; returns rank 0's result."""
        with self._exit_on_lost_connection():
            self._broadcast_call((function, arguments))
        return self._call_with_watchdog(function, arguments)

    def follow(self) -> None:
        """Run the calls of rank 0 until it ends. Raises SystemExit with its status where it failed."""
        while True:
            payload: list[SharedCall | int] = [0]
            with self._exit_on_lost_connection():
                dist.broadcast_object_list(payload, src=0, group=self._waiting)
            if payload[0] == 0:
                return
            if isinstance(payload[0], int):
                raise SystemExit(payload[0])
            self._call_with_watchdog(*payload[0])

    def _call_with_watchdog(self, function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
        self._calls += 1
        self._in_sync = False  # a rank that fails in the call must not wait for the others
        prefix = f"{self._prefix}/watchdog-{self._calls}"

        def store() -> Store:
            return PrefixStore(prefix, open_store(self.place, self._timeout))

        address = self.place
        with (
            self._exit_on_lost_connection(),
            Watchdog(store, store_owner(address), address.rank, address.ranks, self._timeout),
        ):
            result = function(*arguments)
        self._in_sync = True
        return result

    def _broadcast_call(self, call: SharedCall | int) -> None:
        dist.broadcast_object_list([call], src=0, group=self._waiting)

    @contextmanager
    def _exit_on_lost_connection(self) -> Iterator[None]:
        """Exit with one line, not with a traceback, where another rank has ended."""
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
    """The exit status of rank 0, which the others adopt."""
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return 0 if error is None else 2 if isinstance(error, GroundupError) or explain(error) else 1


def _default_sigterm() -> None:
    """Let SIGTERM end this process even while its main thread waits for other ranks; nothing is saved then."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
