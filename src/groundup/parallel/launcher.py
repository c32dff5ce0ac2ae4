"""Ranks: the processes that train one model together, started on this machine and looked after.

in:  a function, what it gets, and how many ranks
out: what rank 0 returns. A rank that dies or stands still ends the others too; all are started again and go on from
     what they saved last. An error raised on purpose passes through.

Ranks are forked from a server process that has imported the function's module and nothing else, so a rank is there in
a tenth of a second, and no thread of this process is lost in the fork. Such a process ends without tearing down its
interpreter, which gloo's threads would now and then make an abort of.
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
from typing import Any, TypeVar, cast

from groundup.core.errors import GroundupError, TrainingError
from groundup.parallel.context import heartbeat_into, join_ranks

Result = TypeVar("Result")

LIBRARY = re.compile(r"site-packages|/lib/python3")
CONNECTION_LOST = re.compile(
    r"gloo|NCCL|Connection (reset|closed)|Socket Timeout|TCPStore|Broken pipe", re.IGNORECASE
)
"""In an error's text: another rank is gone, and this one only noticed."""
LOST_CONNECTION = "lost touch with another rank"

ATTEMPTS = 3
"""Starts in a row that come no further than the one before, until the run stops."""
START_SECONDS = 600.0
"""For the first step of every rank, at least: kernels are compiled in it."""
GRACE_SECONDS = 30.0
"""For ranks that were asked to leave; whoever is still there then is killed."""


@dataclass(frozen=True)
class RankFailure:
    """Why an attempt ended: which rank, what became of it, where it stood."""

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

    The function must be importable by name, and arguments and result must pickle. timeout: seconds that a rank may
    stand still (see `world.stand_at`).

    Raises what a rank raises; TrainingError naming the rank that died or stood still, when starting again came no
    further ATTEMPTS times. SIGINT and SIGTERM are passed on: the ranks save what they must and leave, then this process
    does.
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
                f"{outcome}. {ATTEMPTS} starts in a row came no further. "
                "The same command goes on from what was saved last"
            )
        info(f"{outcome}: starting all {ranks} ranks again from what was saved last")


class _Attempt:
    """One start of all ranks."""

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], ranks: int, timeout: float
    ) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(["torch.distributed", function.__module__])
        self._ranks, self._timeout = ranks, timeout
        self._folder = tempfile.TemporaryDirectory(prefix="groundup-ranks-")
        self._heartbeats = context.RawArray("d", 2 * ranks)
        """step and time of the last sign of life, rank after rank"""
        self._pipes: list[Connection] = []
        self._processes = []
        lifeline, self._alive = context.Pipe(duplex=False)
        for rank in range(ranks):
            ours, theirs = context.Pipe(duplex=False)
            place = LocalRank(rank, ranks, self._folder.name)
            process = context.Process(
                target=_rank_main,
                args=(place, function, arguments, timeout, theirs, lifeline, self._heartbeats),
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
        """Until all ranks are done, or the first of them is not well."""
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
        leaving = [result.status for result in results.values() if isinstance(result, _Exited)]
        if leaving:
            raise KeyboardInterrupt if leaving[0] == 128 + signal.SIGINT else SystemExit(leaving[0])
        return results[0]

    def _receive(self, rank: int) -> Any:
        try:
            kind, value = self._pipes[rank].recv()
        except EOFError:
            process = self._processes[rank][0]
            process.join(GRACE_SECONDS)
            return RankFailure(rank, exit_reason(process.exitcode), self._step(rank))
        if kind == "leaves":
            return _Exited(value)
        if kind == "raised":
            raise value
        return RankFailure(rank, value, self._step(rank)) if kind == "failed" else value

    def _first_failure(self, results: dict[int, Any]) -> RankFailure | None:
        """One that was killed rather than one that lost touch with it: that is only what follows."""
        failures = [value for value in results.values() if isinstance(value, RankFailure)]
        if not failures:
            return None
        time.sleep(0.5)  # whoever died first may be heard of last
        for rank, pipe in enumerate(self._pipes):
            if rank not in results and pipe.poll():
                value = self._receive(rank)
                failures += [value] if isinstance(value, RankFailure) else []
        return min(failures, key=lambda failure: (failure.reason.startswith(LOST_CONNECTION), failure.rank))

    def _hung_rank(self, results: dict[int, Any], began: float) -> RankFailure | None:
        """The rank that is furthest behind, where none has given a sign of life for too long."""
        left = [rank for rank in range(self._ranks) if rank not in results]
        signs = [self._heartbeats[2 * rank + 1] for rank in left]
        started = all(self._step(rank) for rank in left)
        patience = self._timeout if started else max(self._timeout, START_SECONDS)
        if not left or time.time() - max(began, *signs) < patience:
            return None
        stacks = self._stacks(left)
        # Whoever waits for another one isn't the one that is waited for.
        last = min(
            left, key=lambda rank: (self._step(rank), "torch/distributed" in "".join(stacks[rank][:3]), rank)
        )
        where = next(
            (frame_location(line) for line in stacks[last] if not LIBRARY.search(line)), "nobody knows where"
        )
        return RankFailure(last, f"stood still for {patience:.0f} seconds in {where}", self._step(last))

    def _stacks(self, ranks: list[int]) -> dict[int, list[str]]:
        """What each rank is doing: a line per call, the innermost first."""
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
        """No rank outlives the attempt."""
        left = [process for process, _ in self._processes if process.pid is not None]
        for process in left:
            process.kill()
            process.join()


@dataclass(frozen=True)
class _Exited:
    """A rank that was asked to leave has saved and left."""

    status: int


@dataclass(frozen=True)
class LocalRank:
    """Which rank a process is, and where the ranks meet."""

    rank: int
    ranks: int
    folder: str


def _rank_main(
    place: LocalRank, function: Callable[..., Any], arguments: tuple[Any, ...], timeout: float,
    pipe: Connection, lifeline: Connection, stands: Any,
) -> None:  # fmt: skip
    """What runs in a rank's process; it tells of its end through the pipe."""
    os.setpgid(0, 0)  # a terminal's Ctrl-C reaches the parent alone, which passes it on once
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    stack = (Path(place.folder) / f"rank-{place.rank}.stack").open("w")
    faulthandler.register(signal.SIGUSR1, file=stack, all_threads=False)
    sign = heartbeat_into(stands, place.rank)
    sign(0)
    code = 0
    try:
        # Whoever waits for a rank that stands still is told to give up later than that rank is found out.
        with join_ranks(place.rank, place.ranks, Path(place.folder), 2 * timeout, sign):
            result = function(*arguments)
        pipe.send(("done", result if place.rank == 0 else None))
    except (SystemExit, KeyboardInterrupt) as leaving:
        code = leaving.code if isinstance(leaving, SystemExit) else 128 + signal.SIGINT  # type: ignore[assignment]
        pipe.send(("leaves", code))
    except Exception as error:
        if CONNECTION_LOST.search(str(error)) and not isinstance(error, GroundupError):
            pipe.send(("failed", f"{LOST_CONNECTION} in {error_location(error)}"))
        else:
            pipe.send(("raised", _portable(error, place.rank)))
    sys.exit(code)


def _die_with_parent(lifeline: Connection) -> None:
    """The other end is the parent's alone, and nothing is ever sent."""
    try:
        lifeline.recv()
    except EOFError:
        os.kill(os.getpid(), signal.SIGKILL)


def _portable(error: Exception, rank: int) -> Exception:
    """The error with its traceback as a note; in words where it can't leave its process."""
    error.add_note(f"on rank {rank}:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"on rank {rank}:\n{traceback.format_exc()}")
    return error


def frame_location(line: str) -> str:
    """A line of a stack as faulthandler writes it, in words."""
    found = re.search(r'File "(.+)", line (\d+) in (\w+)', line)
    return f"{found[3]} ({Path(found[1]).name}:{found[2]})" if found else line.strip()


def error_location(error: BaseException) -> str:
    """Where in this project an error came about."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = next((frame for frame in reversed(frames) if not LIBRARY.search(frame.filename)), frames[-1])
    return f"{ours.name} ({Path(ours.filename).name}:{ours.lineno})"


def exit_reason(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with status {code} without a word"
    return f"was killed by signal {-code} ({signal.Signals(-code).name})"


@contextmanager
def _forward_signals(send: Callable[[int], None]) -> Iterator[None]:
    """SIGINT and SIGTERM of this process reach the ranks, which save and leave; at a second one, at once."""
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
