"""A minimal SVG writer: rectangles, paths, lines, circles, text.

in:  shapes in pixels, colours by their names in `palette`
out: one SVG document; the same shapes give the same bytes
"""

from html import escape
from typing import Literal

from groundup.book.palette import PAPER

FONTS = "'Libertinus Serif', 'Iowan Old Style', Palatino, Georgia, serif"
Anchor = Literal["start", "middle", "end"]


class Drawing:
    """Collects shapes; `svg()` returns the document."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._shapes: list[str] = []

    def rect(self, x: float, y: float, width: float, height: float, fill: str,
             stroke: str = "", radius: float = 4, opacity: float = 1) -> None:  # fmt: skip
        """A rectangle with rounded corners."""
        line = f"stroke:{PAPER[stroke]};stroke-width:1" if stroke else "stroke:none"
        self._shapes.append(
            f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(max(width, 0))}" height="{_n(height)}" rx="{_n(radius)}" '
            f'style="fill:{PAPER[fill]};fill-opacity:{_n(opacity)};{line}"/>'
        )

    def path(self, d: str, fill: str = "", stroke: str = "", width: float = 1.2, opacity: float = 1) -> None:
        """An SVG path, filled or stroked."""
        inside = f"fill:{PAPER[fill]}" if fill else "fill:none"
        line = f"stroke:{PAPER[stroke]};stroke-width:{_n(width)}" if stroke else "stroke:none"
        self._shapes.append(f'<path d="{d}" style="{inside};{line};opacity:{_n(opacity)}"/>')

    def line(self, x1: float, y1: float, x2: float, y2: float, stroke: str = "muted", width: float = 1.2,
             arrow: bool = False) -> None:  # fmt: skip
        """A straight line; `arrow` adds a head to a vertical one."""
        self.path(f"M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}", stroke=stroke, width=width)
        if arrow:
            back = -5 if y2 > y1 else 5
            self.path(f"M{_n(x2 - 3.5)} {_n(y2 + back)}L{_n(x2)} {_n(y2)}L{_n(x2 + 3.5)} {_n(y2 + back)}",
                      stroke=stroke, width=width)  # fmt: skip

    def circle(self, x: float, y: float, radius: float, fill: str, stroke: str) -> None:
        """A circle."""
        self._shapes.append(
            f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" '
            f'style="fill:{PAPER[fill]};stroke:{PAPER[stroke]};stroke-width:1.2"/>'
        )

    def text(self, x: float, y: float, words: str, size: float = 13, fill: str = "ink",
             anchor: Anchor = "start", italic: bool = False, bold: bool = False) -> None:  # fmt: skip
        """One line of text; `y` is its baseline."""
        look = f"font-size:{_n(size)}px;font-family:{FONTS};fill:{PAPER[fill]};text-anchor:{anchor}"
        look += ";font-style:italic" * italic + ";font-weight:bold" * bold
        self._shapes.append(f'<text x="{_n(x)}" y="{_n(y)}" style="{look}">{escape(words)}</text>')

    def svg(self) -> str:
        """The SVG document."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_n(self.width)} {_n(self.height)}" '
            f'width="{_n(self.width)}" height="{_n(self.height)}">{"".join(self._shapes)}</svg>'
        )


def _n(value: float) -> str:
    """A coordinate with at most two decimals, without `.0` or `-0`."""
    return f"{round(value, 2) + 0:g}" if abs(value) < 1e4 else f"{value:.0f}"
