"""Experiment trackers: copies of `metrics.jsonl` in TensorBoard, trackio or Weights & Biases. One file per program.

in:  the names in `runtime.trackers`, then every line of metrics.jsonl
out: the same points in that program, under the run's name and with the resolved configuration; files in
     `workspace/trackers/<program>/<run>`

`metrics.jsonl` is the reference. A tracker runs on its own thread and is filled from that file whenever training
starts or resumes, so it never has a point twice and may be switched on later. An error in a tracker is reported
once; training continues without it.
"""

import contextlib
import json
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from groundup.core.atomic_io import write_json
from groundup.core.errors import GroundupError

TrackerName = Literal["tensorboard", "trackio", "wandb"]

DESCRIPTION = "run.json"
"""File of `Run.save`, in the folder of the resume state."""
WAITING_LINES = 100_000
"""Longest queue of a slow tracker, in lines; further lines are dropped and counted."""
CLOSE_SECONDS = 10.0
"""Seconds that the end of a stage waits for a tracker to finish writing."""


@dataclass(frozen=True)
class Run:
    """A stage's run for a tracker."""

    name: str
    """the artifact's name, the same after every interruption"""
    folder: Path
    """folder for the tracker's files; need not exist"""
    group: str = ""
    """name of the whole run of the pipeline"""
    label: str = ""
    """name of the stage in it"""
    config: Mapping[str, Any] = field(default_factory=dict)
    """the stage's resolved configuration: recipe, runtime, inputs"""

    @property
    def title(self) -> str:
        """Unique name for people: run, stage and the beginning of the artifact's fingerprint."""
        return f"{self.group}/{self.label}-{self.name.rsplit('-', 1)[-1]}" if self.group else self.name

    def save(self, folder: Path) -> None:
        """Write group, label and configuration for `load`, which other ranks call."""
        payload = {"group": self.group, "label": self.label, "config": self.config}
        write_json(folder / DESCRIPTION, payload)

    @staticmethod
    def load(name: str, trackers: Path, folder: Path) -> "Run":
        """The run `name` whose description is in `folder`; without one it has no group and no configuration."""
        path = folder / DESCRIPTION
        payload = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return Run(name, trackers, **payload)


@dataclass(frozen=True)
class Point:
    """The finite numbers of one line of metrics.jsonl."""

    step: int
    values: dict[str, float]


class RunTracker(Protocol):
    """One run in one program. Any method may raise any exception, or take long."""

    def begin(self, history: Sequence[Point]) -> None:
        """Open the run so that it contains exactly `history`, whatever an interrupted process wrote to it."""
        ...

    def log(self, point: Point) -> None:
        """Add a point; steps never decrease."""
        ...

    def close(self) -> None:
        """Flush, and end the run."""
        ...


class Background:
    """A tracker on its own thread: nothing here blocks for longer than `close_seconds`, and nothing raises."""

    def __init__(
        self,
        name: str,
        tracker: RunTracker,
        info: Callable[[str], None],
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        self._name, self._tracker, self._info, self._close_seconds = name, tracker, info, close_seconds
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
        """Wait for the queue, and report the lines that the tracker missed."""
        self._ask(self._tracker.close, 0)
        with contextlib.suppress(queue.Full):
            self._calls.put_nowait(None)
        self._thread.join(self._close_seconds)
        self._left = True
        if self._thread.is_alive():
            self._info(
                f"{self._name} was still writing after {self._close_seconds:g} s: its last lines may be missing"
            )
        if self.missed:
            self._info(f"{self._name} missed {self.missed:,} lines; metrics.jsonl has all of them")

    def _ask(self, call: Callable[[], None], lines: int) -> None:
        self._given += lines
        if not self._failed:
            with contextlib.suppress(queue.Full):
                self._calls.put_nowait((call, lines))

    def _work(self) -> None:
        while not self._left and (queued_call := self._calls.get()) is not None:
            call, lines = queued_call
            if self._failed:
                continue
            try:
                call()
                self._written += lines
            except Exception as error:  # third-party code must not stop a training
                self._failed = True
                if not self._left:
                    self._info(f"{self._name} stopped, the run continues without it: {error!r}")


def open_trackers(names: Sequence[TrackerName], run: Run, info: Callable[[str], None]) -> list[Background]:
    """The trackers of these names, each on its own thread.

    Raises GroundupError for one whose package isn't installed.
    """
    require(names)
    trackers = []
    for name in dict.fromkeys(names):
        kind = import_module(f"groundup.core.trackers.{name}").KIND
        trackers.append(Background(name, kind(replace(run, folder=run.folder / name / run.name)), info))
    return trackers


def require(names: Sequence[TrackerName]) -> None:
    """Raise GroundupError for the first tracker whose package isn't installed."""
    for name in names:
        spec = find_spec(name)
        if (
            spec is None or spec.origin is None
        ):  # a folder of that name in the working directory has no origin
            raise GroundupError(
                f'runtime.trackers names "{name}", but its package is not installed. '
                f"pip install 'groundup[{name}]', or remove it from runtime.trackers"
            )


def points(lines: Sequence[dict[str, Any]]) -> list[Point]:
    """Lines of metrics.jsonl as points; lines without a step and values that are no finite numbers are skipped."""
    found_points = []
    for line in lines:
        values = {
            name: float(value)
            for name, value in line.items()
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
        }
        if "step" in line and values:
            found_points.append(Point(line["step"], values))
    return found_points
