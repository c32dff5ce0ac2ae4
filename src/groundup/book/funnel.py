"""Funnel chart of the data: files, documents, tokens, packed sequences, and the rejects of each step.

in:  `Level`s with their kept and rejected counts
out: an SVG whose bars narrow by the kept fraction
"""

from dataclasses import dataclass

from groundup.book.drawing import Drawing

_BAR, _GAP, _LEFT, _FULL = 34.0, 30.0, 6.0, 372.0


@dataclass(frozen=True)
class Level:
    """A bar: `kept` of `total` items continue; `rejects` are the notes on the others."""

    name: str
    total: int
    kept: int
    rejects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """A bar divided into the splits of the dataset."""

    name: str
    parts: tuple[tuple[str, int], ...]


def funnel_svg(levels: tuple[Level, ...], splits: tuple[Split, ...]) -> str:
    """Bars from top to bottom, each as wide as the kept fraction of the one above it."""
    steps = len(levels) + len(splits)
    picture = Drawing(640, steps * _BAR + (steps - 1) * _GAP + 26)
    y, width = 18.0, _FULL
    for index, level in enumerate(levels):
        width = _level(picture, y, width, level, last=index == steps - 1)
        y += _BAR + _GAP
    for index, split in enumerate(splits):
        _split(picture, y, width, split)
        if index < len(splits) - 1:
            _ribbon(picture, y + _BAR, width)
        y += _BAR + _GAP
    return picture.svg()


def _level(picture: Drawing, y: float, width: float, level: Level, last: bool) -> float:
    """Draw one bar with its rejects; return the width of the kept part."""
    rejected = level.total - level.kept
    share = level.kept / level.total if level.total else 1.0
    kept = max(width * share, 4.0) if rejected else width
    kept = min(kept, width - 3) if rejected else kept
    picture.rect(_LEFT, y, kept, _BAR, "blue", radius=3)
    picture.text(_LEFT + 10, y + 22, f"{level.total:,} {level.name}", 14.5, "page")
    if rejected:
        picture.rect(_LEFT + kept, y, width - kept, _BAR, "red", radius=3)
        picture.path(
            f"M{_LEFT + width + 4} {y + _BAR / 2}H{_LEFT + _FULL + 24}", stroke="red", width=0.8, opacity=0.7
        )
    for index, words in enumerate(level.rejects):
        start = y + _BAR / 2 + 4.5 - 7.5 * (len(level.rejects) - 1)
        picture.text(_LEFT + _FULL + 30, start + 15 * index, words, 13, "red" if not index else "muted")
    if not last:
        _ribbon(picture, y + _BAR, kept)
    return kept


def _split(picture: Drawing, y: float, width: float, split: Split) -> None:
    total = sum(number for _, number in split.parts)
    x = _LEFT
    for index, (_, number) in enumerate(split.parts):
        span = max(width * number / total if total else 0, 3.0)
        picture.rect(x, y, span, _BAR, "blue" if index == 0 else "orange", radius=3)
        x += span
    picture.text(_LEFT + 10, y + 22, f"{total:,} {split.name}", 14.5, "page")
    for index, (name, number) in enumerate(split.parts):
        colour = "blue" if index == 0 else "orange"
        words = f"{number:,} {name}"
        picture.text(_LEFT + _FULL + 30, y + 14 + 16 * index, words, 13, colour)


def _ribbon(picture: Drawing, y: float, width: float) -> None:
    picture.path(f"M{_LEFT} {y + 1}h{width}v{_GAP - 2}h-{width}Z", fill="soft-blue", opacity=0.8)
