"""Launcher: starts the ranks of this machine and restarts them where one dies or hangs.

in:  a function, its arguments, the number of ranks
out: what rank 0 returns. A rank that dies or hangs ends all ranks; they are restarted and resume from their last
     checkpoint. An exception that a rank raises is raised here

Ranks are forked from a server process that has imported only the function's module: a rank starts in a tenth of a
second, and the fork loses no thread of this process. Such a process exits without tearing down its interpreter, in
which gloo's threads cause an occasional abort.
"""

import faulthandler
import multiprocessing as mp
import os
import pickle
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np

from groundup.core.errors import GroundupError, TrainingError
from groundup.core.os_errors import exit_reason, explain
from groundup.parallel.context import heartbeat_into, join_ranks

Result = TypeVar("Result")

LIBRARY = re.compile(r"site-packages|/lib/python3")
CONNECTION_LOST = re.compile(
    r"gloo|NCCL|Connection (reset|closed)|Socket Timeout|TCPStore|Broken pipe", re.IGNORECASE
)
"""Error texts that follow from the end of another rank."""
LOST_CONNECTION = "lost the connection to another rank"

ATTEMPTS = 3
"""Consecutive starts without progress after which the run stops."""
START_SECONDS = 600.0
"""Least timeout of the first step, in which kernels are compiled."""
GRACE_SECONDS = 30.0
"""Time that ranks have to exit by themselves before they are killed."""


@dataclass(frozen=True)
class RankFailure:
    """Why an attempt ended: the rank, the reason, the step it had reached."""

    rank: int
    reason: str
    step: int

    def __str__(self) -> str:
        return f"rank {self.rank} {self.reason}" + (f" at step {self.step}" if self.step else "")


def launch(
    function: Callable[..., Result],
    arguments: tuple[Any, ...],
    ranks: int,
    timeout: float,
    info: Callable[[str], None] = lambda text: None,
) -> Result:
    """Call `function(*arguments)` in `ranks` processes at once and return what rank 0's call returns.

    The function must be importable by name, and arguments and result must pickle. timeout: seconds without a heartbeat
    after which a rank counts as hanging (see `context.heartbeat`).

    Raises what a rank raises; TrainingError naming the rank that died or hung, after ATTEMPTS consecutive starts
    without progress. SIGINT and SIGTERM are forwarded: the ranks save and exit, then this process does.
    """
    furthest, stuck = 0, 0
    while True:
        outcome = _Attempt(function, arguments, ranks, timeout).run()
        if not isinstance(outcome, RankFailure):
            return cast(Result, outcome)
        stuck = 1 if outcome.step > furthest else stuck + 1
        furthest = max(furthest, outcome.step)
        if stuck == ATTEMPTS:
            raise TrainingError(
                f"{outcome}. {ATTEMPTS} consecutive starts made no progress. "
                "Rerun to resume from the last checkpoint"
            )
        info(f"{outcome}: restarting all {ranks} ranks from the last checkpoint")


class _Attempt:
    """One start of all ranks."""

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], ranks: int, timeout: float
    ) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(["torch.distributed", function.__module__])
        self._ranks, self._timeout = ranks, timeout
        self._folder = tempfile.TemporaryDirectory(prefix="groundup-ranks-")
        self._heartbeats = open_heartbeats(Path(self._folder.name), ranks, "w+")
        """step and time of each rank's last heartbeat, rank after rank"""
        self._pipes: list[Connection] = []
        self._processes = []
        lifeline, self._alive = context.Pipe(duplex=False)
        for rank in range(ranks):
            ours, theirs = context.Pipe(duplex=False)
            local_rank = LocalRank(rank, ranks, self._folder.name)
            process = context.Process(
                target=_rank_main,
                args=(local_rank, function, arguments, timeout, theirs, lifeline),
                name=f"rank-{rank}",
                daemon=True,
            )
            self._pipes.append(ours)
            self._processes.append((process, theirs))

    def run(self) -> Any:
        """Rank 0's result, or the Failure that ended the attempt."""
        with self._folder, _forward_signals(self._terminate):
            for process, theirs in self._processes:
                process.start()
                theirs.close()
            try:
                outcome = self._watch()
                if not isinstance(outcome, RankFailure):
                    for process, _ in self._processes:
                        process.join(GRACE_SECONDS)
                return outcome
            finally:
                self._kill_all()

    def _watch(self) -> Any:
        """Wait until all ranks are done or one fails."""
        results: dict[int, Any] = {}
        began = time.time()
        while len(results) < self._ranks:
            waiting = {self._pipes[rank]: rank for rank in range(self._ranks) if rank not in results}
            for pipe in wait(list(waiting), timeout=1.0):
                rank = waiting[pipe]  # type: ignore[index]
                results[rank] = self._receive(rank)
            failure = self._first_failure(results) or self._hung_rank(results, began)
            if failure is not None:
                return failure
        exited = [result.status for result in results.values() if isinstance(result, _Exited)]
        if exited:
            raise KeyboardInterrupt if exited[0] == 128 + signal.SIGINT else SystemExit(exited[0])
        return results[0]

    def _receive(self, rank: int) -> Any:
        try:
            kind, value = self._pipes[rank].recv()
        except EOFError:
            process = self._processes[rank][0]
            process.join(GRACE_SECONDS)
            return RankFailure(rank, exit_reason(process.exitcode), self._step(rank))
        if kind == "exited":
            return _Exited(value)
        if kind == "raised":
            raise value
        return RankFailure(rank, value, self._step(rank)) if kind == "failed" else value

    def _first_failure(self, results: dict[int, Any]) -> RankFailure | None:
        """The failure that caused the others: a killed rank, rather than one that lost the connection to it."""
        failures = [value for value in results.values() if isinstance(value, RankFailure)]
        if not failures:
            return None
        time.sleep(0.5)  # the first rank that died may be reported last
        for rank, pipe in enumerate(self._pipes):
            if rank not in results and pipe.poll():
                value = self._receive(rank)
                failures += [value] if isinstance(value, RankFailure) else []
        return min(failures, key=lambda failure: (failure.reason.startswith(LOST_CONNECTION), failure.rank))

    def _hung_rank(self, results: dict[int, Any], began: float) -> RankFailure | None:
        """The rank that hangs, where no rank has sent a heartbeat for too long."""
        left = [rank for rank in range(self._ranks) if rank not in results]
        heartbeats = [self._heartbeats[2 * rank + 1] for rank in left]
        started = all(self._step(rank) for rank in left)
        timeout = self._timeout if started else max(self._timeout, START_SECONDS)
        if not left or time.time() - max(began, *heartbeats) < timeout:
            return None
        stacks = self._stacks(left)
        # A rank that waits in a collective isn't the culprit.
        last = min(
            left, key=lambda rank: (self._step(rank), "torch/distributed" in "".join(stacks[rank][:3]), rank)
        )
        location = next(
            (frame_location(line) for line in stacks[last] if not LIBRARY.search(line)), "an unknown place"
        )
        return RankFailure(last, f"hung for {timeout:.0f} seconds in {location}", self._step(last))

    def _stacks(self, ranks: list[int]) -> dict[int, list[str]]:
        """Each rank's call stack, the innermost call first."""
        for rank in ranks:
            process = self._processes[rank][0]
            if process.pid is not None and self._heartbeats[2 * rank + 1]:
                os.kill(process.pid, signal.SIGUSR1)
        time.sleep(1.0)
        files = {rank: Path(self._folder.name) / f"rank-{rank}.stack" for rank in ranks}
        texts = {
            rank: file.read_text(encoding="utf-8") if file.exists() else "" for rank, file in files.items()
        }
        return {rank: [line for line in text.splitlines() if "File" in line] for rank, text in texts.items()}

    def _step(self, rank: int) -> int:
        return int(self._heartbeats[2 * rank])

    def _terminate(self, number: int) -> None:
        for process, _ in self._processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)

    def _kill_all(self) -> None:
        """Kill all ranks that still run."""
        left = [process for process, _ in self._processes if process.pid is not None]
        for process in left:
            process.kill()
            process.join()


@dataclass(frozen=True)
class _Exited:
    """A rank that exited on a signal, after saving."""

    status: int


@dataclass(frozen=True)
class LocalRank:
    """A rank of this machine, and the folder of its rendezvous."""

    rank: int
    ranks: int
    folder: str


def _rank_main(
    local_rank: LocalRank, function: Callable[..., Any], arguments: tuple[Any, ...], timeout: float,
    pipe: Connection, lifeline: Connection,
) -> None:  # fmt: skip
    """Main function of a rank's process; sends its result through the pipe."""
    os.setpgid(0, 0)  # a terminal's Ctrl-C reaches the parent alone, which forwards it once
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    code, folder = 0, Path(local_rank.folder)
    try:
        stack = (folder / f"rank-{local_rank.rank}.stack").open("w")
        faulthandler.register(signal.SIGUSR1, file=stack, all_threads=False)
        send_heartbeat = heartbeat_into(open_heartbeats(folder, local_rank.ranks, "r+"), local_rank.rank)
        send_heartbeat(0)
        # Collectives time out later than a hanging rank is detected.
        with join_ranks(local_rank.rank, local_rank.ranks, folder, 2 * timeout, send_heartbeat):
            result = function(*arguments)
        pipe.send(("done", result if local_rank.rank == 0 else None))
    except (SystemExit, KeyboardInterrupt) as leaving:
        code = leaving.code if isinstance(leaving, SystemExit) else 128 + signal.SIGINT  # type: ignore[assignment]
        pipe.send(("exited", code))
    except Exception as error:
        if CONNECTION_LOST.search(str(error)) and not isinstance(error, GroundupError):
            pipe.send(("failed", f"{LOST_CONNECTION} in {error_location(error)}"))
        else:
            pipe.send(("raised", explain(error) or _portable(error, local_rank.rank)))
    sys.exit(code)


def open_heartbeats(folder: Path, ranks: int, mode: Literal["r+", "w+"]) -> Any:
    """The array of all ranks' heartbeats: a file in the ranks' folder, since /dev/shm may not be writable."""
    return np.memmap(folder / "heartbeats", np.float64, mode, shape=(2 * ranks,))


def _die_with_parent(lifeline: Connection) -> None:
    """End this process when the parent, which alone holds the other end and sends nothing, has ended."""
    try:
        lifeline.recv()
    except EOFError:
        os.kill(os.getpid(), signal.SIGKILL)


def _portable(error: Exception, rank: int) -> Exception:
    """The error with its traceback as a note; a RuntimeError with both where it can't be pickled."""
    error.add_note(f"on rank {rank}:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"on rank {rank}:\n{traceback.format_exc()}")
    return error


def frame_location(line: str) -> str:
    """The function, file and line of a stack line that faulthandler wrote."""
    match = re.search(r'File "(.+)", line (\d+) in (\w+)', line)
    return f"{match[3]} ({Path(match[1]).name}:{match[2]})" if match else line.strip()


def error_location(error: BaseException) -> str:
    """The function, file and line of this project that an error comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = next((frame for frame in reversed(frames) if not LIBRARY.search(frame.filename)), frames[-1])
    return f"{ours.name} ({Path(ours.filename).name}:{ours.lineno})"


@contextmanager
def _forward_signals(send: Callable[[int], None]) -> Iterator[None]:
    """Forward SIGINT and SIGTERM to the ranks, which save and exit; at a second one they exit at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, _: send(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
