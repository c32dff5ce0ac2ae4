"""Training dashboard: progress, loss curve, metrics and messages on one terminal screen.

in:  progress, every line of metrics.jsonl, and messages
out: lines of text that fit the terminal, redrawn twice a second on its alternate screen

On the alternate screen, as editors use it, nothing scrolls, and a resized window is redrawn. At the end the previous
content of the terminal is restored, followed by all messages.
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
"""Smallest time between two samples of the progress; the rate is measured over the last samples."""
CURVE_POINTS = 1024
"""A curve has between this many points and twice as many."""
METRICS = (
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
"""Name in metrics.jsonl, label on the screen, format."""
UNITS = {"memory_gb": " GB", "val_bpb": " bits/byte", "lr_factor": " of peak"}
METRIC_WIDTH = 38
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of the Braille dot at [row][column] of a cell."""
MIN_CURVE_HEIGHT, MIN_CURVE_WIDTH = 4, 50


def clock(seconds: float) -> str:
    """Seconds as 1:02 or 1:02:03."""
    whole = max(0, round(seconds))
    minutes = f"{whole // 60 % 60:02d}" if whole >= 3600 else str(whole // 60)
    return (f"{whole // 3600}:" if whole >= 3600 else "") + f"{minutes}:{whole % 60:02d}"


class Curve:
    """Downsampled values: at most 2 x CURVE_POINTS means over equally many consecutive values."""

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
    """The content of the dashboard."""

    label: str
    total: float
    unit: str
    done: float = 0.0
    note: str = ""
    """what is done while there is no rate yet, e.g. "compiling kernels" """
    first_step: int = 0
    last_step: int = 0
    values: dict[str, float] = field(default_factory=dict)
    """the newest value of every metric; `skipped` is the total"""
    loss: Curve = field(default_factory=Curve)
    validation: list[tuple[int, float]] = field(default_factory=list)
    messages: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    samples: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=60))
    warm: bool = False
    """whether the first unit is complete"""

    def add_line(self, line: dict[str, Any]) -> None:
        """Add one line of metrics.jsonl; non-finite values, which are strings there, are ignored."""
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
        """Record that `done` units are complete at time `now` (seconds of a monotonic clock)."""
        if self.samples and not self.warm:
            self.samples.clear()  # the first unit may compile kernels: the rate is measured from its end
            self.warm = True
        self.done = done
        if not self.samples or now - self.samples[-1][0] >= RATE_SECONDS:
            self.samples.append((now, done))

    def rate(self) -> float:
        """Units per second over the last samples; 0 while there are too few."""
        if len(self.samples) < 2:
            return 0.0
        (began, first), (ended, last) = self.samples[0], self.samples[-1]
        return (last - first) / max(ended - began, 1e-9)


def draw(board: Board, width: int, height: int) -> list[Text]:
    """The screen as at most `height` lines of at most `width` cells."""
    head = [_headline(board, width), _bar(board, width)]
    metrics = _metrics(board, width, max(2, height // 3))
    room = height - len(head) - len(metrics) - 1
    messages = list(board.messages)[-max(2, height // 5) :] if room >= MIN_CURVE_HEIGHT + 6 else []
    curve_height = room - 2 - (len(messages) + 1 if messages else 0)
    lines = [*head, Text()]
    if curve_height >= MIN_CURVE_HEIGHT and width >= MIN_CURVE_WIDTH:
        lines += [*_curve(board, width, curve_height), Text()]
    lines += metrics
    if messages:
        lines += [Text("─" * width, style="bright_black"), *(Text(message) for message in messages)]
    lines = lines[:height]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return lines


def _headline(board: Board, width: int) -> Text:
    """Label and progress; at the right, if they fit, rate and remaining time."""
    text = Text.assemble((board.label, "bold"), f"  {board.unit.rstrip('s')} {board.done:,.0f}",
                         (f" of {board.total:,.0f}", "bright_black"))  # fmt: skip
    rate = board.rate()
    speed = f"{rate:,.1f} {board.unit}/s" if rate >= 1 else f"{1 / (rate or 1):,.1f} s/step"
    left = f"{clock((board.total - board.done) / rate)} left" if rate else board.note or "starting"
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


def _metrics(board: Board, width: int, most: int) -> list[Text]:
    """The newest metrics in as many columns as fit, and at most `most` rows."""
    known = [entry for entry in METRICS if entry[0] in board.values]
    columns = max(1, width // METRIC_WIDTH)
    rows = min(most, -(-len(known) // columns))
    lines = [Text() for _ in range(rows)]
    for index, (name, label, pattern) in enumerate(known[: rows * columns]):
        line = lines[index % rows]
        line.append(" " * (index // rows * METRIC_WIDTH - line.cell_len))
        line.append(f"{label:<15}", style="bright_black")
        alarming = name == "skipped" and board.values[name] > 0
        line.append(
            f"{board.values[name]:{pattern}}{UNITS.get(name, '')}", style="red" if alarming else "bold"
        )
    return lines


def _curve(board: Board, width: int, height: int) -> list[Text]:
    """The loss in dots, validation points as ●, each with its own scale, and the range of steps below."""
    left, right = 8, 8 if board.validation else 0
    cells = max(1, width - left - right - 2)
    rows = height - 1
    # The scale leaves out the first, much larger losses: they would flatten the rest of the curve.
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
    """Column and value of the validation points, one per 4 cells, so that they don't hide the loss."""
    points = {}
    for step, score in board.validation:
        x = _place(step, board.first_step, board.last_step, cells)
        points[x // 4] = (x, score)
    return list(points.values())


def span(values: Sequence[float], share: float) -> tuple[float, float]:
    """Minimum and the quantile `share` of the values; never equal."""
    if not values:
        return 0.0, 1.0
    ordered = sorted(values)
    low, high = ordered[0], ordered[min(len(ordered) - 1, int(share * len(ordered)))]
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def dots(values: Sequence[float], cells: int, rows: int, low: float, high: float) -> list[str]:
    """A curve as `rows` lines of `cells` Braille characters, 2 x 4 dots each; values outside the range are clamped."""
    wide, tall = 2 * cells, 4 * rows
    bits = [[0] * cells for _ in range(rows)]
    last: int | None = None
    for x in range(wide if values else 0):
        start = x * len(values) // wide
        among = values[start : max(start + 1, (x + 1) * len(values) // wide)]
        y = _depth(sum(among) / len(among), low, high, tall)
        last = y if last is None else last
        # Fill the column up to the previous one's height, so that a steep curve is connected.
        for between in range(min(y, last), max(y, last) + 1):
            bits[between // 4][x // 2] |= DOTS[between % 4][x % 2]
        last = y
    return ["".join(chr(0x2800 + cell) for cell in row) for row in bits]


def _printable(line: str) -> str:
    """A line without colours, tabs and other characters that move the cursor."""
    plain = Text.from_ansi(line.expandtabs(4)).plain
    return "".join(character if character.isprintable() else " " for character in plain).strip()


def _depth(value: float, low: float, high: float, size: int) -> int:
    """The row, of `size` rows below `high`, of a value; on a logarithmic scale if all values are positive."""
    if low > 0:
        value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
    return size - 1 - _place(value, low, high, size)


def _place(value: float, low: float, high: float, size: int) -> int:
    """The index, of `size` positions from `low` to `high`, of a value."""
    share = (value - low) / (high - low) if high > low else 1.0
    return min(size - 1, max(0, int(share * size)))


class Dashboard:
    """A Board on a terminal. Any thread may use it."""

    def __init__(self, console: Console, board: Board) -> None:
        self._console, self._board, self._lock = console, board, threading.Lock()
        self._messages: list[str] = []

    @staticmethod
    def fits(console: Console) -> bool:
        """Whether the terminal supports the dashboard and its characters."""
        able = console.is_interactive and not console.is_dumb_terminal and console.file.isatty()
        return able and not console.quiet and console.encoding.startswith("utf")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the dashboard; at the end restore the terminal and print all messages."""
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
            for text in self._messages:
                self._console.print(text, markup=False)

    def info(self, text: str) -> None:
        """Show a message; it is printed again at the end."""
        with self._lock:
            self._messages.append(text)
            self._board.messages.extend(filter(None, map(_printable, text.splitlines())))

    def add_line(self, line: dict[str, Any]) -> None:
        """Add one line of metrics.jsonl."""
        with self._lock:
            self._board.add_line(line)

    def note(self, text: str) -> None:
        """Set what is shown while there is no rate yet."""
        with self._lock:
            self._board.note = text

    def advance(self, done: float) -> None:
        """Record the completed units."""
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
    """Replaces stderr while the dashboard is shown: complete lines become messages."""

    def __init__(self, dashboard: Dashboard, terminal: Any) -> None:
        self._dashboard, self._rest = dashboard, ""
        self.rich_proxied_file = terminal
        """the attribute in which rich looks for the real stream behind a replaced one"""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._dashboard.info(line)
        return len(text)

    def fileno(self) -> int:
        return int(self.rich_proxied_file.fileno())
