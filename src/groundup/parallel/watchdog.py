"""A lookout: ranks on many machines tell one another where they stand, so that one that stands still is named.

in:  signs of life of this rank (`world.alive`), and a store that all ranks share
out: where nothing goes on any more, one line that says which rank it is and where it stood; then this process ends

Whoever started the ranks (torchrun, Slurm, Ray) sees the end of a process, but not that one hangs. So a thread in each
rank writes down every few seconds where the rank stands. A rank that has stood still for too long, though it may only
wait for another one, reads what all wrote: who wrote nothing lately has been stopped or lost its machine; else it is
whoever is furthest behind and waits for nobody.
"""

import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from groundup.parallel.context import set_heartbeat
from groundup.parallel.launcher import LIBRARY, START_SECONDS

EXIT_RESTART = 75
"""Exit status of a rank that is well but for the others: start all again (EX_TEMPFAIL of sysexits.h)."""
HEARTBEAT_SECONDS = 5.0
"""Between two notes of a rank, at most."""


@dataclass(frozen=True)
class Heartbeat:
    """Where a rank stands. beat: the note's number; waits: in a call that waits for other ranks."""

    count: int
    host: str
    step: int
    location: str
    in_collective: bool
    done: bool = False


class Watchdog:
    """Used as a context around the work that ranks share."""

    def __init__(
        self, open_store: Callable[[], Store], keeper: str, rank: int, ranks: int, timeout: float
    ) -> None:
        """open_store: a connection of the lookout's own. timeout: seconds a rank may stand still.

        keeper: who keeps the store, in words: nobody else can be named when it stands still.
        """
        self._open, self._store_owner = open_store, keeper
        self._rank, self._ranks, self._timeout = rank, ranks, timeout
        self._beat = min(HEARTBEAT_SECONDS, timeout / 8)
        self._beats, self._step, self._last_progress = 0, 0, time.monotonic()
        self._stopped = threading.Event()
        self._main = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._store = self._open()
        set_heartbeat(self._on_progress)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        set_heartbeat(None)
        self._stopped.set()
        self._thread.join(2 * self._beat)
        if kind is None:
            self._publish(done=True)

    def _on_progress(self, step: int | None) -> None:
        self._step, self._last_progress = self._step if step is None else step, time.monotonic()

    def _watch(self) -> None:
        while not self._stopped.wait(self._beat):
            self._publish()
            patience = self._timeout if self._step else max(self._timeout, START_SECONDS)
            if time.monotonic() - self._last_progress > patience:
                self._report_and_exit(patience)

    def _publish(self, done: bool = False) -> None:
        where, waits = python_location(self._main)
        self._beats += 1
        stand = Heartbeat(self._beats, socket.gethostname(), self._step, where, waits, done)
        try:
            self._store.set(f"stand/{self._rank}", json.dumps(asdict(stand)))
        except dist.DistError:
            return  # whoever keeps the store is gone: the ranks notice it when they next talk, or stand still

    def _report_and_exit(self, patience: float) -> None:
        """Say who it is, unless another rank has done so, and end this process, whose main thread can't."""
        answers: list[dict[int, Heartbeat]] = []
        reader = threading.Thread(target=self._read_twice, args=(answers,), daemon=True)
        reader.start()
        reader.join(4 * self._beat)
        if self._stopped.is_set():
            return
        if len(answers) == 2:
            speaks = self._store.add("told", 1) == 1
            text = find_culprit(answers[0], answers[1], self._ranks, patience)
        else:
            speaks, text = True, f"{self._store_owner} gives no sign of life any more"
        if speaks:
            end = "the ranks leave; started again, they go on from what was saved last"
            print(f"groundup: {text}: {end}", file=sys.stderr, flush=True)
        os._exit(EXIT_RESTART)

    def _read_twice(self, answers: list[dict[int, Heartbeat]]) -> None:
        """What all ranks wrote, and once more some beats later; others read this one's notes meanwhile."""
        self._publish()
        answers.append(self._read_heartbeats())
        for _ in range(5):
            time.sleep(self._beat / 2)
            self._publish()
        answers.append(self._read_heartbeats())

    def _read_heartbeats(self) -> dict[int, Heartbeat]:
        keys = {rank: f"stand/{rank}" for rank in range(self._ranks)}
        found = {rank: self._store.get(key) for rank, key in keys.items() if self._store.check([key])}
        return {rank: Heartbeat(**json.loads(text)) for rank, text in found.items()}


def find_culprit(before: dict[int, Heartbeat], now: dict[int, Heartbeat], ranks: int, patience: float) -> str:
    """The rank that the others wait for, in words. before: what the ranks wrote some beats earlier."""
    for rank in range(ranks):
        if rank not in now:
            return f"rank {rank} has not begun within {patience:.0f} seconds"
    silent = {rank for rank in now if rank in before and before[rank].count == now[rank].count}
    left = [rank for rank in now if not now[rank].done]
    last = min(left, key=lambda rank: (rank not in silent, now[rank].step, now[rank].in_collective, rank))
    stand = now[last]
    what = f"stood still for {patience:.0f} seconds"
    if last in silent:
        what = "gives no sign of life any more; last heard of"
    return f"rank {last} on {stand.host} {what} in {stand.location} at step {stand.step}"


def python_location(thread: int) -> tuple[str, bool]:
    """The innermost call of this project in a thread of this process, and whether it waits for other ranks there."""
    calls = traceback.walk_stack(sys._current_frames().get(thread))
    stack = list(traceback.StackSummary.extract(calls, lookup_lines=False))
    waits = any("torch/distributed" in call.filename for call in stack[:3])
    ours = next((call for call in stack if not LIBRARY.search(call.filename)), None)
    return f"{ours.name} ({Path(ours.filename).name}:{ours.lineno})" if ours else "nobody knows where", waits
