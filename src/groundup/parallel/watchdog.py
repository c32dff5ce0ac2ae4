"""Watchdog: names the rank on which a distributed training hangs, and ends the ranks so that they can be restarted.

in:  heartbeats of this rank (`context.heartbeat`), and a key-value store that all ranks share
out: when a training hangs, one line that names the rank and its location; then this process exits with status 75

The launcher of the ranks (torchrun, Slurm, Ray) notices that a process ends, but not that it hangs. So a thread of each
rank publishes the rank's step and location every few seconds. A rank without progress for `timeout` seconds may only be
waiting for another one: it reads what all ranks published. A rank that stopped publishing is stopped or lost its
machine; otherwise the culprit is the rank that is furthest behind outside of a collective.
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
"""Exit status of a rank that ends because of another one: restart all ranks (EX_TEMPFAIL of sysexits.h)."""
HEARTBEAT_SECONDS = 5.0
"""Longest time between two heartbeats of a rank."""


@dataclass(frozen=True)
class Heartbeat:
    """What a rank publishes."""

    count: int
    """heartbeats so far"""
    host: str
    step: int
    location: str
    """innermost call of this project in the main thread"""
    in_collective: bool
    """whether that call waits for other ranks"""
    done: bool = False


class Watchdog:
    """Watches the ranks while they compute together; a context manager."""

    def __init__(
        self, open_store: Callable[[], Store], store_owner: str, rank: int, ranks: int, timeout: float
    ) -> None:
        """open_store: opens a connection for the watchdog alone. timeout: seconds without progress that are a hang.

        store_owner: description of the process that holds the store, which is the culprit if the store hangs.
        """
        self._open, self._store_owner = open_store, store_owner
        self._rank, self._ranks, self._timeout = rank, ranks, timeout
        self._interval = min(HEARTBEAT_SECONDS, timeout / 8)
        self._count, self._step, self._last_progress = 0, 0, time.monotonic()
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
        self._thread.join(2 * self._interval)
        if kind is None:
            self._publish(done=True)

    def _on_progress(self, step: int | None) -> None:
        self._step, self._last_progress = self._step if step is None else step, time.monotonic()

    def _watch(self) -> None:
        while not self._stopped.wait(self._interval):
            self._publish()
            timeout = self._timeout if self._step else max(self._timeout, START_SECONDS)
            if time.monotonic() - self._last_progress > timeout:
                self._report_and_exit(timeout)

    def _publish(self, done: bool = False) -> None:
        location, in_collective = python_location(self._main)
        self._count += 1
        heartbeat = Heartbeat(self._count, socket.gethostname(), self._step, location, in_collective, done)
        try:
            self._store.set(f"heartbeat/{self._rank}", json.dumps(asdict(heartbeat)))
        except dist.DistError:
            return  # the store is gone: the next collective fails, or the ranks hang

    def _report_and_exit(self, timeout: float) -> None:
        """Print the culprit, unless another rank has, and end this process, whose main thread hangs."""
        readings: list[dict[int, Heartbeat]] = []
        thread = threading.Thread(target=self._read_twice, args=(readings,), daemon=True)
        thread.start()
        thread.join(4 * self._interval)
        if self._stopped.is_set():
            return
        if len(readings) == 2:
            first_to_report = self._store.add("reports", 1) == 1
            culprit = find_culprit(readings[0], readings[1], self._ranks, timeout)
        else:
            first_to_report, culprit = True, f"{self._store_owner} does not respond"
        if first_to_report:
            consequence = (
                f"all ranks exit with status {EXIT_RESTART}; rerun to resume from the last checkpoint"
            )
            print(f"groundup: {culprit}; {consequence}", file=sys.stderr, flush=True)
        os._exit(EXIT_RESTART)

    def _read_twice(self, readings: list[dict[int, Heartbeat]]) -> None:
        """Read all ranks' heartbeats twice, some intervals apart; meanwhile go on publishing for the other ranks."""
        self._publish()
        readings.append(self._read_heartbeats())
        for _ in range(5):
            time.sleep(self._interval / 2)
            self._publish()
        readings.append(self._read_heartbeats())

    def _read_heartbeats(self) -> dict[int, Heartbeat]:
        keys = {rank: f"heartbeat/{rank}" for rank in range(self._ranks)}
        texts = {rank: self._store.get(key) for rank, key in keys.items() if self._store.check([key])}
        return {rank: Heartbeat(**json.loads(text)) for rank, text in texts.items()}


def find_culprit(before: dict[int, Heartbeat], now: dict[int, Heartbeat], ranks: int, timeout: float) -> str:
    """A sentence about the rank that the others wait for. before: the heartbeats some intervals earlier."""
    for rank in range(ranks):
        if rank not in now:
            return f"rank {rank} did not start within {timeout:.0f} seconds"
    silent = {rank for rank in now if rank in before and before[rank].count == now[rank].count}
    unfinished = [rank for rank in now if not now[rank].done]
    culprit = min(
        unfinished, key=lambda rank: (rank not in silent, now[rank].step, now[rank].in_collective, rank)
    )
    last = now[culprit]
    where = f"in {last.location} at step {last.step}"
    if culprit in silent:
        return f"rank {culprit} on {last.host} stopped sending heartbeats; the last one was {where}"
    return f"rank {culprit} on {last.host} hung for {timeout:.0f} seconds {where}"


def python_location(thread: int) -> tuple[str, bool]:
    """The innermost call of this project in a thread of this process, and whether it waits for other ranks there."""
    calls = traceback.walk_stack(sys._current_frames().get(thread))
    stack = list(traceback.StackSummary.extract(calls, lookup_lines=False))
    in_collective = any("torch/distributed" in call.filename for call in stack[:3])
    own = next((call for call in stack if not LIBRARY.search(call.filename)), None)
    location = f"{own.name} ({Path(own.filename).name}:{own.lineno})" if own else "an unknown place"
    return location, in_collective
