"""Progress of a run: a live line in a terminal, plain lines elsewhere, with rate and remaining time.

in:  totals and advances of each task
out: text on stderr; nothing on stdout, which is for data
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from groundup.core.dashboard import Board, Dashboard, clock

ESTIMATE_UNITS, ESTIMATE_SECONDS = 2, 3.0
"""Units and seconds after the first unit before a rate and the remaining time are shown: the first one may compile."""
PLAIN_SECONDS = 10.0
"""Seconds between two lines where stderr is no terminal."""


class Reporter:
    """Prints messages and progress of a run. `quiet`: prints nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._dashboard: Dashboard | None = None

    def info(self, text: str) -> None:
        """Print one line, or show it on the dashboard while there is one."""
        if self._dashboard is None:
            self.console.print(text, markup=False)
        else:
            self._dashboard.info(text)

    def show(self, line: dict[str, Any]) -> None:
        """Pass a line of metrics.jsonl to the dashboard, if one is shown."""
        if self._dashboard is not None:
            self._dashboard.add_line(line)

    @contextmanager
    def track(self, label: str, total: float | None, unit: str, start: float = 0) -> Iterator["Tracker"]:
        """Show the progress of a task while the context is open."""
        tracker: Tracker
        if self._dashboard is not None:
            tracker = Tracker(None, label, total, unit, start)
            yield tracker
        elif self.console.is_terminal and not self.console.quiet:
            with _bar(self.console) as bar:
                tracker = _LiveTracker(bar, label, total, unit, start)
                yield tracker
        else:
            tracker = Tracker(self, label, total, unit, start)
            yield tracker
        self._conclude(tracker)

    @contextmanager
    def watch(
        self, label: str, total: float, unit: str, start: float, history: Sequence[dict[str, Any]]
    ) -> Iterator["Tracker"]:
        """Like `track`, for training: in a terminal, a dashboard of the lines passed to `show`.

        history: the lines of metrics.jsonl so far.
        """
        if self._dashboard is not None or not Dashboard.fits(self.console):
            with self.track(label, total, unit, start) as tracker:
                yield tracker
            return
        board = Board(label, total, unit)
        for line in history:
            board.add_line(line)
        dashboard = Dashboard(self.console, board)
        tracker = _BoardTracker(dashboard, label, total, unit, start)
        with dashboard.shown():
            self._dashboard = dashboard
            try:
                yield tracker
            finally:
                self._dashboard = None
        self._conclude(tracker)

    def _conclude(self, tracker: "Tracker") -> None:
        seconds = time.monotonic() - tracker.began
        if seconds >= 1:
            done = f"{tracker.done:,.0f} {tracker.unit} in {clock(seconds)}"
            self.info(f"  {tracker.label}: {done}" + tracker.tail())


class Tracker:
    """Counts completed units; prints a plain line every few seconds."""

    def __init__(
        self, reporter: Reporter | None, label: str, total: float | None, unit: str, start: float
    ) -> None:
        self.began = time.monotonic()
        self.label, self.total, self.unit, self.start, self.done = label, total, unit, start, start
        self._reporter, self._printed, self._note = reporter, self.began, ""
        self._first: tuple[float, float] | None = None

    def advance(self, n: float = 1) -> None:
        """Count `n` more completed units."""
        self.done += n
        now = time.monotonic()
        self._first = self._first or (now, self.done)
        if self._reporter is not None and now - self._printed >= PLAIN_SECONDS:
            self._printed = now
            self._reporter.info(f"  {self.label}: {self.describe(now)}{self.tail()}")

    def note(self, text: str) -> None:
        """Set the text at the end of the line, e.g. "loss 3.21"."""
        self._note = text

    def tail(self) -> str:
        """The note with its separator; empty without a note."""
        return f" · {self._note}" if self._note else ""

    def rate(self, now: float) -> float | None:
        """Units per second since the first one was complete; None while there is no honest estimate."""
        if self._first is None:
            return None
        began, first = self._first
        if self.done - first < ESTIMATE_UNITS or now - began < ESTIMATE_SECONDS:
            return None
        return (self.done - first) / (now - began)

    def describe(self, now: float) -> str:
        """Completed units and total, and once they can be estimated, rate and remaining time."""
        of = f"/{self.total:,.0f}" if self.total else ""
        return ", ".join([f"{self.done:,.0f}{of} {self.unit}", *self.estimates(now)])

    def estimates(self, now: float) -> list[str]:
        """Rate and remaining time as text; empty while there is no honest estimate."""
        rate = self.rate(now)
        if rate is None:
            return []
        left = [f"{clock((self.total - self.done) / rate)} left"] if self.total else []
        return [f"{rate:,.1f} {self.unit}/s", *left]


class _LiveTracker(Tracker):
    def __init__(self, bar: Progress, label: str, total: float | None, unit: str, start: float) -> None:
        super().__init__(None, label, total, unit, start)
        self._bar = bar
        self._task = bar.add_task(label, total=total, completed=int(start), detail="")

    def advance(self, n: float = 1) -> None:
        super().advance(n)
        detail = ", ".join(self.estimates(time.monotonic())) + self.tail()
        self._bar.update(self._task, completed=self.done, detail=detail)


class _BoardTracker(Tracker):
    def __init__(
        self, dashboard: Dashboard, label: str, total: float | None, unit: str, start: float
    ) -> None:
        super().__init__(None, label, total, unit, start)
        self._dashboard = dashboard
        dashboard.advance(start)

    def note(self, text: str) -> None:
        super().note(text)
        self._dashboard.note(text)

    def advance(self, n: float = 1) -> None:
        super().advance(n)
        self._dashboard.advance(self.done)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[detail]}"),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=sys.stderr.isatty(),
    )
