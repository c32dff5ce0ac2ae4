"""Copies of `metrics.jsonl` in the programs that people watch their runs with. One file per program.

in:  the names in `runtime.trackers`, then every line of metrics.jsonl
out: the same points in that program, under the run's name; files of ours in `workspace/trackers/<program>/<run>`

`metrics.jsonl` stays the truth. A tracker works on a thread of its own and is filled from that file whenever a
training starts or resumes, so it never holds a point twice and may be switched on late. Whatever goes wrong
in it is said once; the training goes on without it.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from groundup.core.errors import GroundupError

TrackerName = Literal["tensorboard", "trackio", "wandb"]

WAITING_LINES = 100_000
"""Lines that wait for a slow tracker; beyond that they are dropped and counted."""
CLOSE_SECONDS = 10.0
"""How long the end of a stage waits for a tracker to write what is left."""


@dataclass(frozen=True)
class Run:
    """What a tracker is told about the run."""

    name: str
    """the artifact's name, the same after every interruption"""
    folder: Path
    """where the tracker may keep files; need not exist"""


@dataclass(frozen=True)
class Point:
    """The finite numbers of one line of metrics.jsonl."""

    step: int
    values: dict[str, float]


class RunTracker(Protocol):
    """One run in one program. Any method may raise anything, or take long."""

    def begin(self, history: Sequence[Point]) -> None:
        """Open the run so that it holds exactly `history`, whatever an interrupted process left in it."""
        ...

    def log(self, point: Point) -> None:
        """Add a point; steps never go back."""
        ...

    def close(self) -> None:
        """Write what is left, and end the run."""
        ...


class Background:
    """A tracker on its own thread: nothing here blocks for longer than `close_seconds`, and nothing raises."""

    def __init__(
        self, name: str, tracker: RunTracker, say: Callable[[str], None], close_seconds: float = CLOSE_SECONDS
    ) -> None:
        self._name, self._tracker, self._say, self._close_seconds = name, tracker, say, close_seconds
        self._given, self._written, self._failed, self._left = 0, 0, False, False
        self._calls: queue.Queue[tuple[Callable[[], None], int] | None] = queue.Queue(WAITING_LINES)
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    @property
    def missed(self) -> int:
        """Lines given and not written, so far."""
        return self._given - self._written

    def begin(self, history: Sequence[Point]) -> None:
        """Have the run hold exactly these points."""
        self._ask(lambda: self._tracker.begin(history), len(history))

    def log(self, point: Point) -> None:
        """Have one point added."""
        self._ask(lambda: self._tracker.log(point), 1)

    def close(self) -> None:
        """Wait for the rest, and say what the tracker missed."""
        self._ask(self._tracker.close, 0)
        with contextlib.suppress(queue.Full):
            self._calls.put_nowait(None)
        self._thread.join(self._close_seconds)
        self._left = True
        if self._thread.is_alive():
            self._say(f"{self._name} was still writing after {self._close_seconds:g} s and is left behind")
        if self.missed:
            self._say(f"{self._name} missed {self.missed:,} lines; metrics.jsonl has all of them")

    def _ask(self, call: Callable[[], None], lines: int) -> None:
        self._given += lines
        if not self._failed:
            with contextlib.suppress(queue.Full):
                self._calls.put_nowait((call, lines))

    def _work(self) -> None:
        while not self._left and (asked := self._calls.get()) is not None:
            call, lines = asked
            if self._failed:
                continue
            try:
                call()
                self._written += lines
            except Exception as error:  # a tracker is other people's code, and never worth a training
                self._failed = True
                if not self._left:
                    self._say(f"{self._name} stopped, the run goes on without it: {error!r}")


def open_trackers(names: Sequence[TrackerName], run: Run, say: Callable[[str], None]) -> list[Background]:
    """The trackers of these names, each on its own thread.

    Raises GroundupError for one whose package isn't installed.
    """
    require(names)
    made = []
    for name in dict.fromkeys(names):
        kind = import_module(f"groundup.core.trackers.{name}").KIND
        made.append(Background(name, kind(Run(run.name, run.folder / name / run.name)), say))
    return made


def require(names: Sequence[TrackerName]) -> None:
    """Raise GroundupError for the first tracker whose package isn't installed."""
    for name in names:
        spec = find_spec(name)
        if (
            spec is None or spec.origin is None
        ):  # a folder of that name in the working directory has no origin
            raise GroundupError(
                f'runtime.trackers names "{name}", but its package is not installed. '
                f"pip install 'groundup[{name}]', or take it out of runtime.trackers"
            )


def points(lines: Sequence[dict[str, Any]]) -> list[Point]:
    """Lines of metrics.jsonl as points; what has no step, and what isn't a finite number, is left out."""
    found = []
    for line in lines:
        values = {
            name: float(value)
            for name, value in line.items()
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
        }
        if "step" in line and values:
            found.append(Point(line["step"], values))
    return found
