"""What a book is made of: chapters of blocks, in plain records that both renderers read.

in:  nothing; `chapters` fills these records from a run's artifacts
out: a `Volume`, which `html` and `pdf` print. Both say the same, since neither adds a word of its own

Text in these records is data: renderers show it and never read markup from it.
"""

from dataclasses import dataclass
from typing import Literal

Style = Literal["plain", "strong", "emphasis", "code"]


@dataclass(frozen=True)
class Run:
    """A stretch of text in one style."""

    text: str
    style: Style = "plain"


@dataclass(frozen=True)
class Paragraph:
    """Running text. `lead` opens a chapter, `note` explains a figure in smaller type."""

    runs: tuple[Run, ...]
    role: Literal["body", "lead", "note"] = "body"


@dataclass(frozen=True)
class Heading:
    """The title of a section within a chapter."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows under a head. `align` has one letter a column: l, r or m (left, monospaced).

    `total` sets the last row apart as the sum of those above.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    caption: str = ""
    total: bool = False


@dataclass(frozen=True)
class Figure:
    """A picture: SVG in the light palette's colours (see `palette`). `share` is its part of the text width."""

    name: str
    svg: str
    caption: str
    alt: str
    share: float = 1.0


@dataclass(frozen=True)
class Code:
    """Text shown as it stands, in a fixed width."""

    text: str
    language: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Fact:
    """One number of a portrait: `value` large, `label` under it."""

    value: str
    label: str


@dataclass(frozen=True)
class Facts:
    """A row of numbers."""

    items: tuple[Fact, ...]


@dataclass(frozen=True)
class Piece:
    """A stretch of a sample with its colour: 0 = none, 1.. = one of the soft fills."""

    text: str
    shade: int = 0


@dataclass(frozen=True)
class Tokens:
    """Text cut into tokens, each in the next colour."""

    pieces: tuple[Piece, ...]
    caption: str = ""


@dataclass(frozen=True)
class Turn:
    """One message of a conversation; its pieces may be coloured."""

    role: str
    pieces: tuple[Piece, ...]
    note: str = ""


@dataclass(frozen=True)
class Dialogue:
    """A conversation."""

    turns: tuple[Turn, ...]
    caption: str = ""


@dataclass(frozen=True)
class Verdict:
    """One thing the model can or cannot do, and the figure that says so."""

    answer: Literal["yes", "partly", "no", "unknown"]
    text: str
    because: str


@dataclass(frozen=True)
class Verdicts:
    """What the model can and cannot do."""

    items: tuple[Verdict, ...]


Block = Paragraph | Heading | Table | Figure | Code | Facts | Tokens | Dialogue | Verdicts


@dataclass(frozen=True)
class Chapter:
    """A chapter; an appendix has no number."""

    title: str
    blocks: tuple[Block, ...]
    number: int = 0


@dataclass(frozen=True)
class Volume:
    """The whole book."""

    title: str
    subtitle: str
    author: str
    abstract: str
    emblem: str
    facts: tuple[Fact, ...]
    colophon: str
    chapters: tuple[Chapter, ...]


def prose(*parts: str | Run, role: Literal["body", "lead", "note"] = "body") -> Paragraph:
    """A paragraph from strings and runs."""
    return Paragraph(tuple(part if isinstance(part, Run) else Run(part) for part in parts), role)


def strong(text: str) -> Run:
    """Text that stands out."""
    return Run(text, "strong")


def code(text: str) -> Run:
    """A name or value as it is typed."""
    return Run(text, "code")
