"""Plots as SVG: curves by matplotlib, bars and the emblem by hand; deterministic bytes.

in:  series of numbers
out: SVG in the colours of `palette`; labels stay text, so that the page's font sets them
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Plot
from matplotlib.ticker import FuncFormatter, MaxNLocator

from groundup.book.drawing import FONTS, Drawing
from groundup.book.palette import PAPER

_STYLE: Any = {
    "svg.hashsalt": "groundup",
    "svg.fonttype": "none",
    "font.family": "STIXGeneral",
    "font.size": 10,
    "axes.edgecolor": PAPER["muted"],
    "axes.labelcolor": PAPER["muted"],
    "axes.titlecolor": PAPER["ink"],
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "grid.color": PAPER["faint"],
    "grid.linewidth": 0.5,
    "xtick.color": PAPER["muted"],
    "ytick.color": PAPER["muted"],
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "text.color": PAPER["ink"],
    "legend.frameon": False,
    "legend.labelcolor": PAPER["ink"],
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
_POINTS = 500
"""Maximum number of points of a curve; more are not visible at print size."""


@dataclass(frozen=True)
class Series:
    """One curve. `smooth`: thin, with its running mean on top; `points`: with markers."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    label: str = ""
    colour: str = "blue"
    kind: Literal["line", "smooth", "points"] = "line"


@dataclass(frozen=True)
class Panel:
    """One plot of a grid."""

    title: str
    series: tuple[Series, ...]
    y_from_zero: bool = False
    reference: tuple[float, str] | None = None


@dataclass(frozen=True)
class Bar:
    """One bar with an optional interval."""

    label: str
    value: float
    interval: tuple[float, float] | None = None
    colour: str = "blue"


def series(log: Sequence[dict[str, Any]], key: str, x: str = "step", **look: Any) -> Series:
    """The finite values of `key` in a metrics log."""
    pairs = [(entry[x], entry[key]) for entry in log if _finite(entry.get(key)) and _finite(entry.get(x))]
    return Series(tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs), **look)


def curves_svg(panels: Sequence[Panel], columns: int, x_label: str, height: float = 2.2) -> str:
    """A grid of plots with `columns` columns."""
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context(_STYLE):
        plot = Plot(figsize=(6.4, height * rows), layout="constrained")
        FigureCanvasSVG(plot)
        axes = plot.subplots(rows, columns, squeeze=False)
        for index, cell in enumerate(axes.flat):
            if index < len(panels):
                _panel(cell, panels[index], x_label if index >= len(panels) - columns else "")
            else:
                cell.set_visible(False)
        return _svg(plot)


def bars_svg(bars: Sequence[Bar], axis: str, limit: float, reference: tuple[float, str] | None = None) -> str:
    """Horizontal bars from zero to `limit`, with whiskers; `reference` is a labelled vertical line."""
    left, width, pitch = 190.0, 380.0, 30.0
    picture = Drawing(640, len(bars) * pitch + 46)
    bottom = len(bars) * pitch + 10

    def at(value: float) -> float:
        return left + width * min(max(value / limit, 0), 1) if limit else left

    for index, bar in enumerate(bars):
        y = 8 + index * pitch
        picture.text(left - 10, y + 16, bar.label, 13, anchor="end")
        picture.rect(left, y + 3, at(bar.value) - left, 18, bar.colour, radius=2)
        end = at(bar.value)
        if bar.interval is not None:
            low, high = at(bar.interval[0]), at(bar.interval[1])
            picture.path(
                f"M{low:.2f} {y + 12}H{high:.2f}M{low:.2f} {y + 8}v8M{high:.2f} {y + 8}v8", stroke="ink"
            )
            end = max(end, high)
        picture.text(end + 8, y + 16.5, _tick(bar.value), 13)
    picture.line(left, 6, left, bottom, "muted", 0.8)
    if reference is not None:
        x = at(reference[0])
        picture.path(f"M{x:.2f} 4V{bottom + 4}", stroke="orange", width=1)
        picture.text(x, bottom + 18, reference[1], 11.5, "orange", "middle", italic=True)
    picture.text(left + width, bottom + 18, axis, 11.5, "muted", "end", italic=True)
    return picture.svg()


def emblem_svg(losses: Sequence[float]) -> str:
    """The title page's ornament: the loss curve, mirrored and repeated."""
    curve = _resampled([value for value in losses if _finite(value)] or [1.0, 0.5, 0.3, 0.2, 0.15, 0.1], 60)
    low, high = min(curve), max(curve)
    heights = [(value - low) / (high - low or 1) for value in curve]
    picture = Drawing(600, 190)
    lines = 17
    for index in range(lines):
        place = 2 * index / (lines - 1) - 1
        points = [f"{12 + 576 * step / (len(heights) - 1):.1f} {95 + place * (14 + 74 * height):.1f}"
                  for step, height in enumerate(heights)]  # fmt: skip
        colour = "orange" if index == lines // 2 else "blue"
        picture.path("M" + "L".join(points), stroke=colour, width=1.1, opacity=1 - 0.72 * abs(place))
    return picture.svg()


def _panel(axes: Any, panel: Panel, x_label: str) -> None:
    axes.set_title(panel.title)
    for item in panel.series:
        colour, label = PAPER[item.colour], item.label or None
        x, y = _thin(item.x), _thin(item.y)
        if item.kind == "points":
            axes.plot(x, y, color=colour, label=label, linewidth=0.9, marker="o", markersize=3)
        elif item.kind == "smooth":
            axes.plot(x, y, color=colour, linewidth=0.5, alpha=0.35)
            axes.plot(x, _running_mean(y), color=colour, label=label, linewidth=1.4)
        else:
            axes.plot(x, y, color=colour, label=label, linewidth=1.2)
    if panel.reference is not None:
        axes.axhline(panel.reference[0], color=PAPER["muted"], linewidth=0.8, linestyle=(0, (4, 3)),
                     label=panel.reference[1])  # fmt: skip
    if panel.y_from_zero:
        axes.set_ylim(bottom=0)
    if any(item.label for item in panel.series) or panel.reference is not None:
        axes.legend(fontsize=9)
    axes.set_xlabel(x_label)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))


def _svg(plot: Plot) -> str:
    buffer = io.StringIO()
    plot.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    return text.replace("'STIXGeneral'", FONTS).replace("STIXGeneral", FONTS)


def _tick(value: float) -> str:
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e6 else f"{value / 1e6:g} M"
    if abs(value) < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:.4g}" if abs(value) < 1 else f"{value:.3g}"


def _thin(values: Sequence[float]) -> list[float]:
    step = max(1, math.ceil(len(values) / _POINTS))
    return list(values[::step]) if step == 1 else [*values[:-1:step], values[-1]]


def _running_mean(values: Sequence[float]) -> list[float]:
    """Exponential moving average with bias correction."""
    keep = 1 - 2 / (max(len(values) / 60, 1) + 1)
    total, weight, means = 0.0, 0.0, []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        means.append(total / weight)
    return means


def _resampled(values: Sequence[float], points: int) -> list[float]:
    """The curve resampled at `points` positions, denser at its start."""
    smooth = _running_mean(values)
    last = len(smooth) - 1
    samples = []
    for index in range(points):
        place = (last + 1) ** (index / (points - 1)) - 1
        below = min(math.floor(place), last)
        above = min(below + 1, last)
        samples.append(smooth[below] + (smooth[above] - smooth[below]) * (place - below))
    return samples


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
