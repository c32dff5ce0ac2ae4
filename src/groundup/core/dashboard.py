"""What a training looks like while it runs, on one screen of a terminal.

in:  how far it is, every line that goes into metrics.jsonl, and what the run says
out: lines of text that fit the terminal exactly, drawn anew twice a second on the terminal's second screen

The second screen is what editors use: nothing scrolls, and a resized window is simply drawn again. What was
on the terminal before comes back at the end, followed by everything that was said meanwhile.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from io import TextIOBase
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

FRAMES_PER_SECOND = 2
RATE_SECONDS = 0.5
"""The rate is taken over the last marks, which are at least this far apart."""
CURVE_POINTS = 1024
"""A curve keeps between this many means and twice as many."""
FIGURES = (
    ("loss", "loss", ".4f"),
    ("val_bpb", "validation", ".4f"),
    ("grad_norm", "gradient norm", ".3f"),
    ("lr_factor", "learning rate", ".1%"),
    ("tokens_per_second", "tokens/s", ",.0f"),
    ("flops_utilization", "of the limit", ".1%"),
    ("memory_gb", "memory", ".2f"),
    ("skipped", "skipped steps", ",.0f"),
    ("update_ratio_max", "largest update", ".1e"),
    ("attention_logit_max", "largest logit", ".1f"),
)
"""Name in metrics.jsonl, how it is called on the screen, and how it is spelled."""
UNITS = {"memory_gb": " GB", "val_bpb": " bits/byte", "lr_factor": " of peak"}
FIGURE_WIDTH = 38
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of the Braille dot at [row][column] of a cell."""
MIN_CURVE_HEIGHT, MIN_CURVE_WIDTH = 4, 50


def clock(seconds: float) -> str:
    """Seconds as 1:02 or 1:02:03."""
    whole = max(0, round(seconds))
    minutes = f"{whole // 60 % 60:02d}" if whole >= 3600 else str(whole // 60)
    return (f"{whole // 3600}:" if whole >= 3600 else "") + f"{minutes}:{whole % 60:02d}"


class Curve:
    """Any number of values as at most 2 x CURVE_POINTS means of equally many consecutive ones."""

    def __init__(self) -> None:
        self.means: list[float] = []
        self._each, self._sum, self._count = 1, 0.0, 0

    def add(self, value: float) -> None:
        """Add the next value."""
        self._sum, self._count = self._sum + value, self._count + 1
        if self._count == self._each:
            self.means.append(self._sum / self._count)
            self._sum, self._count = 0.0, 0
        if len(self.means) == 2 * CURVE_POINTS:
            pairs = zip(self.means[::2], self.means[1::2], strict=True)
            self.means = [(a + b) / 2 for a, b in pairs]
            self._each *= 2


@dataclass
class Board:
    """All that the screen shows."""

    label: str
    total: float
    unit: str
    done: float = 0.0
    first_step: int = 0
    last_step: int = 0
    values: dict[str, float] = field(default_factory=dict)
    """the newest of every metric; `skipped` is their count"""
    loss: Curve = field(default_factory=Curve)
    validation: list[tuple[int, float]] = field(default_factory=list)
    messages: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    marks: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=60))

    def take(self, line: dict[str, Any]) -> None:
        """Take in one line of metrics.jsonl; non-finite values, spelled as strings there, are no points."""
        numbers = {name: value for name, value in line.items() if isinstance(value, int | float)}
        step = int(numbers.pop("step", self.last_step))
        self.last_step = max(self.last_step, step)
        self.first_step = self.first_step or step
        skipped = self.values.get("skipped", 0.0) + numbers.pop("skipped", 0.0)
        self.values |= numbers | {"skipped": skipped}
        if "loss" in numbers:
            self.loss.add(numbers["loss"])
        if "val_bpb" in numbers:
            self.validation.append((step, numbers["val_bpb"]))

    def advance(self, done: float, now: float) -> None:
        """Note that `done` units are done at the time `now` (seconds of a monotonic clock)."""
        self.done = done
        if not self.marks or now - self.marks[-1][0] >= RATE_SECONDS:
            self.marks.append((now, done))

    def rate(self) -> float:
        """Units per second of late; 0 while it isn't known."""
        if len(self.marks) < 2:
            return 0.0
        (began, first), (ended, last) = self.marks[0], self.marks[-1]
        return (last - first) / max(ended - began, 1e-9)


def draw(board: Board, width: int, height: int) -> list[Text]:
    """The screen as at most `height` lines of at most `width` cells."""
    head = [_headline(board, width), _bar(board, width)]
    figures = _figures(board, width, max(2, height // 3))
    room = height - len(head) - len(figures) - 1
    messages = list(board.messages)[-max(2, height // 5) :] if room >= MIN_CURVE_HEIGHT + 6 else []
    curve_height = room - 2 - (len(messages) + 1 if messages else 0)
    lines = [*head, Text()]
    if curve_height >= MIN_CURVE_HEIGHT and width >= MIN_CURVE_WIDTH:
        lines += [*_curve(board, width, curve_height), Text()]
    lines += figures
    if messages:
        lines += [Text("─" * width, style="bright_black"), *(Text(message) for message in messages)]
    lines = lines[:height]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return lines


def _headline(board: Board, width: int) -> Text:
    """What and how far; at the right, if it fits, how fast and how much longer."""
    text = Text.assemble((board.label, "bold"), f"  {board.unit.rstrip('s')} {board.done:,.0f}",
                         (f" of {board.total:,.0f}", "bright_black"))  # fmt: skip
    rate = board.rate()
    speed = f"{rate:,.1f} {board.unit}/s" if rate >= 1 else f"{1 / (rate or 1):,.1f} s/step"
    left = f"{clock((board.total - board.done) / rate)} left" if rate else "starting"
    for right in (f"{speed} · {left}" if rate else left, left):
        gap = width - text.cell_len - len(right)
        if gap >= 2:
            return text.append(" " * gap + right)
    return text


def _bar(board: Board, width: int) -> Text:
    share = min(1.0, board.done / board.total) if board.total else 0.0
    percent = f" {share:4.0%}"
    cells = max(0, width - len(percent))
    full = round(share * cells)
    return Text.assemble(("━" * full, "green"), ("─" * (cells - full), "bright_black"), percent)


def _figures(board: Board, width: int, most: int) -> list[Text]:
    """The newest figures in as many columns as fit, and at most so many rows."""
    known = [entry for entry in FIGURES if entry[0] in board.values]
    columns = max(1, width // FIGURE_WIDTH)
    rows = min(most, -(-len(known) // columns))
    lines = [Text() for _ in range(rows)]
    for index, (name, label, spelling) in enumerate(known[: rows * columns]):
        line = lines[index % rows]
        line.append(" " * (index // rows * FIGURE_WIDTH - line.cell_len))
        line.append(f"{label:<15}", style="bright_black")
        alarming = name == "skipped" and board.values[name] > 0
        line.append(
            f"{board.values[name]:{spelling}}{UNITS.get(name, '')}", style="red" if alarming else "bold"
        )
    return lines


def _curve(board: Board, width: int, height: int) -> list[Text]:
    """The loss in dots, validation points as ●, each with its own scale at its side, and the steps below."""
    left, right = 8, 8 if board.validation else 0
    cells = max(1, width - left - right - 2)
    rows = height - 1
    # Axis marks: the first steps fall far, and would press everything after them to the floor.
    low, high = span(board.loss.means, share=0.95)
    picture = dots(board.loss.means, cells, rows, low, high)
    lines = [Text(line, style="cyan") for line in picture]
    scores = [score for _, score in board.validation]
    best, worst = span(scores, share=1.0)
    for x, score in _thinned(board, cells):
        y = _depth(score, best, worst, rows)
        plain = lines[y].plain
        lines[y].plain = plain[:x] + "●" + plain[x + 1 :]
        lines[y].stylize("yellow", x, x + 1)
    for y, line in enumerate(lines):
        ends = {0: (high, worst), rows - 1: (low, best)}.get(y)
        near = f"{ends[0]:>{left - 1}.3f} " if ends and board.loss.means else " " * left
        far = f" {ends[1]:.3f}" if ends and scores else ""
        lines[y] = Text.assemble(
            (near, "cyan"), ("│", "bright_black"), line, ("│", "bright_black"), (far, "yellow")
        )
    names = ("loss", "validation, bits/byte" if scores else "")
    middle = f"step {board.first_step:,} to {board.last_step:,}"
    gap = max(2, width - sum(map(len, names)) - len(middle))
    under = Text.assemble((names[0], "cyan"), " " * (gap // 2), (middle, "bright_black"),
                          " " * (gap - gap // 2), (names[1], "yellow"))  # fmt: skip
    return [*lines, under]


def _thinned(board: Board, cells: int) -> list[tuple[int, float]]:
    """Where validation points stand and what they are: the last one of every few cells, so the loss shows, too."""
    found = {}
    for step, score in board.validation:
        x = _place(step, board.first_step, board.last_step, cells)
        found[x // 4] = (x, score)
    return list(found.values())


def span(values: Sequence[float], share: float) -> tuple[float, float]:
    """Smallest value, and the one that `share` of them don't exceed; never equal."""
    if not values:
        return 0.0, 1.0
    ordered = sorted(values)
    low, high = ordered[0], ordered[min(len(ordered) - 1, int(share * len(ordered)))]
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def dots(values: Sequence[float], cells: int, rows: int, low: float, high: float) -> list[str]:
    """A curve as `rows` lines of `cells` Braille characters, 2 x 4 dots each; values outside stick to the edge."""
    wide, tall = 2 * cells, 4 * rows
    bits = [[0] * cells for _ in range(rows)]
    last: int | None = None
    for x in range(wide if values else 0):
        start = x * len(values) // wide
        among = values[start : max(start + 1, (x + 1) * len(values) // wide)]
        y = _depth(sum(among) / len(among), low, high, tall)
        last = y if last is None else last
        # A line up or down to the last column's height, so that a steep curve stays one curve.
        for between in range(min(y, last), max(y, last) + 1):
            bits[between // 4][x // 2] |= DOTS[between % 4][x % 2]
        last = y
    return ["".join(chr(0x2800 + cell) for cell in row) for row in bits]


def _printable(line: str) -> str:
    """A line without colours, tabs and other characters that move the cursor."""
    plain = Text.from_ansi(line.expandtabs(4)).plain
    return "".join(character if character.isprintable() else " " for character in plain).strip()


def _depth(value: float, low: float, high: float, size: int) -> int:
    """Which of `size` rows below `high` a value falls on: by its logarithm, where all are positive."""
    if low > 0:
        value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
    return size - 1 - _place(value, low, high, size)


def _place(value: float, low: float, high: float, size: int) -> int:
    """Which of `size` places between `low` and `high` a value falls on."""
    share = (value - low) / (high - low) if high > low else 1.0
    return min(size - 1, max(0, int(share * size)))


class Dashboard:
    """A Board on a terminal. Any thread may use it."""

    def __init__(self, console: Console, board: Board) -> None:
        self._console, self._board, self._lock = console, board, threading.Lock()
        self._said: list[str] = []

    @staticmethod
    def fits(console: Console) -> bool:
        """Whether this terminal can be drawn on, and knows the characters."""
        able = console.is_interactive and not console.is_dumb_terminal and console.file.isatty()
        return able and not console.quiet and console.encoding.startswith("utf")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Take over the terminal; give it back at the end, with all that was said."""
        live = Live(
            self,
            console=self._console,
            screen=True,
            refresh_per_second=FRAMES_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        try:
            with live, redirect_stderr(_Lines(self, self._console.file)):
                yield
        finally:
            for text in self._said:
                self._console.print(text, markup=False)

    def say(self, text: str) -> None:
        """Show a message, and keep it for the end."""
        with self._lock:
            self._said.append(text)
            self._board.messages.extend(filter(None, map(_printable, text.splitlines())))

    def take(self, line: dict[str, Any]) -> None:
        """Take in one line of metrics.jsonl."""
        with self._lock:
            self._board.take(line)

    def advance(self, done: float) -> None:
        """Note how much is done."""
        with self._lock:
            self._board.advance(done, time.monotonic())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            lines = draw(self._board, options.size.width, options.size.height)
        for number, line in enumerate(lines):
            if number:
                yield Segment.line()
            yield from line.render(console)


class _Lines(TextIOBase):
    """Stands in for stderr while the dashboard is up: whole lines become messages."""

    def __init__(self, dashboard: Dashboard, terminal: Any) -> None:
        self._dashboard, self._rest = dashboard, ""
        self.rich_proxied_file = terminal
        """rich's own name for where its consoles write, whatever stands in for the stream"""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._dashboard.say(line)
        return len(text)

    def fileno(self) -> int:
        return int(self.rich_proxied_file.fileno())
