"""Progress for people: a live line in a terminal, plain lines elsewhere, always with rate and time left.

in:  how much is to be done, and how much was just done
out: text on stderr; nothing on stdout, which belongs to data
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_SECONDS = 10.0
"""Where there is no terminal: seconds between two lines."""


class Reporter:
    """Where a run speaks to its person. `quiet` keeps everything to itself."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, markup=False)

    @contextmanager
    def track(self, label: str, total: float | None, unit: str, start: float = 0) -> Iterator["Tracker"]:
        """Show the progress of one piece of work while the context is open."""
        tracker: Tracker
        if self.console.is_terminal and not self.console.quiet:
            with _bar(self.console) as bar:
                tracker = _LiveTracker(bar, label, total, unit, start)
                yield tracker
        else:
            tracker = Tracker(self, label, total, unit, start)
            yield tracker
        seconds = time.monotonic() - tracker.began
        if seconds >= 1:
            self.say(f"  {label}: {tracker.done:,.0f} {unit} in {_clock(seconds)}" + tracker.tail())


class Tracker:
    """Counts what is done; prints a plain line every few seconds."""

    def __init__(
        self, reporter: Reporter | None, label: str, total: float | None, unit: str, start: float
    ) -> None:
        self.began = time.monotonic()
        self.label, self.total, self.unit, self.start, self.done = label, total, unit, start, start
        self._reporter, self._spoke, self._note = reporter, self.began, ""

    def advance(self, n: float = 1) -> None:
        """Say that `n` more units are done."""
        self.done += n
        now = time.monotonic()
        if self._reporter is not None and now - self._spoke >= PLAIN_SECONDS:
            self._spoke = now
            self._reporter.say(f"  {self.label}: {self.describe(now)}{self.tail()}")

    def note(self, text: str) -> None:
        """What stands at the end of the line, e.g. "loss 3.21"."""
        self._note = text

    def tail(self) -> str:
        """The note, set off from what stands before it."""
        return f" · {self._note}" if self._note else ""

    def describe(self, now: float) -> str:
        """Done, total, rate and time left in words."""
        rate = (self.done - self.start) / max(now - self.began, 1e-9)
        of = f"/{self.total:,.0f}" if self.total else ""
        left = f", {_clock((self.total - self.done) / rate)} left" if self.total and rate > 0 else ""
        return f"{self.done:,.0f}{of} {self.unit}, {rate:,.1f} {self.unit}/s{left}"


class _LiveTracker(Tracker):
    def __init__(self, bar: Progress, label: str, total: float | None, unit: str, start: float) -> None:
        super().__init__(None, label, total, unit, start)
        self._bar = bar
        self._task = bar.add_task(label, total=total, completed=int(start), detail="")

    def advance(self, n: float = 1) -> None:
        super().advance(n)
        rate = (self.done - self.start) / max(time.monotonic() - self.began, 1e-9)
        detail = f"{rate:,.1f} {self.unit}/s{self.tail()}"
        self._bar.update(self._task, completed=self.done, detail=detail)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[detail]}"),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=sys.stderr.isatty(),
    )


def _clock(seconds: float) -> str:
    whole = max(0, round(seconds))
    return (
        f"{whole // 60}:{whole % 60:02d}"
        if whole < 3600
        else f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
    )
