"""The book's contents as plain records: chapters of blocks, read by both renderers.

in:  nothing; `chapters` fills these records from a run's artifacts
out: a `BookContent`, which `html` and `pdf` render; neither adds text of its own

Text in these records is data: renderers escape it and never parse markup from it.
"""

from dataclasses import dataclass
from typing import Literal

Style = Literal["plain", "strong", "emphasis", "code"]


@dataclass(frozen=True)
class StyledSpan:
    """Text in one style."""

    text: str
    style: Style = "plain"


@dataclass(frozen=True)
class Paragraph:
    """Running text. `lead` opens a chapter, `note` explains a figure in smaller type."""

    styled_spans: tuple[StyledSpan, ...]
    role: Literal["body", "lead", "note"] = "body"


@dataclass(frozen=True)
class Heading:
    """The title of a section within a chapter."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows under a header. `align` has one letter per column: l, r or m (left, monospaced).

    `total` marks the last row as the sum of the rows above it.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    caption: str = ""
    total: bool = False


@dataclass(frozen=True)
class Figure:
    """An SVG in the light palette's colours (see `palette`). `share` is its fraction of the text width."""

    name: str
    svg: str
    caption: str
    alt: str
    share: float = 1.0


@dataclass(frozen=True)
class Code:
    """Preformatted text in a monospaced font."""

    text: str
    language: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Fact:
    """One headline number: `value` in large type, `label` under it."""

    value: str
    label: str


@dataclass(frozen=True)
class Facts:
    """A row of headline numbers."""

    items: tuple[Fact, ...]


@dataclass(frozen=True)
class ColouredSpan:
    """Text with a background colour. `shade`: 0 = none, 1.. = index into `palette.SHADES`."""

    text: str
    shade: int = 0


@dataclass(frozen=True)
class Tokens:
    """Coloured text: one colour per token, or the loss mask of a conversation."""

    spans: tuple[ColouredSpan, ...]
    caption: str = ""


@dataclass(frozen=True)
class DialogueTurn:
    """One message of a conversation; its pieces may be coloured."""

    role: str
    spans: tuple[ColouredSpan, ...]
    note: str = ""


@dataclass(frozen=True)
class Dialogue:
    """A conversation, or answers to one question for comparison."""

    turns: tuple[DialogueTurn, ...]
    caption: str = ""


@dataclass(frozen=True)
class Finding:
    """One statement about what the model can do. `basis` is the metric it follows from."""

    answer: Literal["yes", "partly", "no", "unknown"]
    text: str
    basis: str


@dataclass(frozen=True)
class Findings:
    """The list of findings."""

    items: tuple[Finding, ...]


Block = Paragraph | Heading | Table | Figure | Code | Facts | Tokens | Dialogue | Findings


@dataclass(frozen=True)
class Chapter:
    """A chapter; an appendix has no number."""

    title: str
    blocks: tuple[Block, ...]
    number: int = 0


@dataclass(frozen=True)
class BookContent:
    """The whole book: numbered chapters and the appendix."""

    title: str
    subtitle: str
    author: str
    abstract: str
    emblem: str
    facts: tuple[Fact, ...]
    colophon: str
    chapters: tuple[Chapter, ...]


def prose(*parts: str | StyledSpan, role: Literal["body", "lead", "note"] = "body") -> Paragraph:
    """A paragraph from strings and runs."""
    return Paragraph(
        tuple(part if isinstance(part, StyledSpan) else StyledSpan(part) for part in parts), role
    )


def strong(text: str) -> StyledSpan:
    """Text in the strong style."""
    return StyledSpan(text, "strong")


def code(text: str) -> StyledSpan:
    """A name or value in the code style."""
    return StyledSpan(text, "code")
