"""Writes resume states in the background, as often as their cost allows.

in:  snapshots of a training
out: their folders on disk, one at a time, written by a thread

How often follows from what it costs: with states every C / 0.03 seconds, where C is what one takes, saving takes
3 % of the time. A runtime says how many seconds of work may be lost at most, and that is never exceeded.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from groundup.parallel.context import SINGLE, ParallelContext
from groundup.train.resume_state import ResumeState, write_state

MAX_COST_FRACTION = 0.03
"""Maximum fraction of the time that saving takes."""
MIN_SECONDS = 10.0
"""Minimum time between two states, unless the runtime allows less work to be lost."""


class AsyncCheckpointer:
    """Writes resume states into `folder` in a thread. An error of a write is raised at the next call.

    most_seconds: work that may be lost at most. writing_costs: whether the thread takes time from the training,
    as on a CPU, or only the copying does.
    """

    def __init__(
        self, folder: Path, max_seconds: float, writing_costs: bool, parallel: ParallelContext = SINGLE
    ) -> None:
        self._world = parallel
        self._folder, self._most, self._writing_costs = folder, max_seconds, writing_costs
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._last = time.monotonic()
        self.interval = min(max_seconds, MIN_SECONDS)
        """seconds between two states"""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.wait()
        elif issubclass(kind, Exception):
            self._join()
        # Otherwise the process exits at once; readers ignore the incomplete write.

    def due(self) -> bool:
        """Whether a state is due. Raises the error of the last write."""
        self._raise()
        return time.monotonic() - self._last > self.interval

    def save(self, take: Callable[[], ResumeState]) -> None:
        """Take a snapshot and start writing it, after the previous write has ended."""
        began = time.monotonic()
        self.wait()
        state = take()
        self._last = time.monotonic()
        self._thread = threading.Thread(
            target=self._write, args=(state, self._last - began), name="checkpoint", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Wait for the current write. Raises its error."""
        self._join()
        self._raise()

    def _write(self, state: ResumeState, stalled: float) -> None:
        began = time.monotonic()
        try:
            write_state(self._folder, state, self._world)
        except BaseException as error:
            self._error = error
        cost = stalled + (time.monotonic() - began if self._writing_costs else 0.0)
        self.interval = interval(cost, self._most)

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


def interval(cost: float, max_seconds: float) -> float:
    """Seconds between two states that cost `cost` seconds each, when at most `most_seconds` may be lost."""
    return min(max_seconds, max(MIN_SECONDS, cost / MAX_COST_FRACTION))
