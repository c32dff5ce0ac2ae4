"""DOCX -> one document in Markdown, by python-docx: headings, paragraphs, lists and tables in the order of the text.

in:  a word processor's file (Office Open XML)
out: its body; deleted text of tracked changes, comments, running heads and feet are left out

The body is walked as XML, since python-docx shows neither inserted text of tracked changes nor content controls.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from groundup.text.ingest.formats._zip_safety import Refused, member, open_zip
from groundup.text.ingest.types import ExtractedText, Options, ReadIssue

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_OUT = {_W + "del", _W + "moveFrom", _W + "rPr", _W + "pPr"}
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
"""What older programs show instead of a text box: its text a second time."""
_MARKS = {
    _W + "tab": "\t",
    _W + "br": "\n",
    _W + "cr": "\n",
    _W + "noBreakHyphen": "‑",
}
_CONTAINERS = {_W + tag for tag in ("sdt", "sdtContent", "customXml", "ins", "moveTo", "smartTag")}
_MOST_DEPTH = 64


def read(path: str, file: BinaryIO, options: Options, skip: int = 0) -> Iterator[ExtractedText | ReadIssue]:
    """The whole file as one document. `skip` has no meaning here."""
    try:
        with open_zip(file, options, "docx") as archive:
            member(
                archive, "[Content_Types].xml", "docx"
            )  # says so early if it's encrypted or something else
        file.seek(0)
        blocks = _blocks(file)
    except Refused as refused:
        yield refused.note
        return
    text = "".join(_separated(blocks)).strip()
    if any(map(str.isalnum, text)):
        yield ExtractedText(text)
    else:
        yield ReadIssue("aside", "empty")


def _blocks(file: BinaryIO) -> list[tuple[str, bool]]:
    import docx

    try:
        return _Body(docx.Document(file)).blocks()
    except (
        Exception
    ) as error:  # python-docx lets through whatever a broken package makes lxml and zipfile raise
        raise Refused(
            ReadIssue("aside", "damaged_docx", detail=f"{type(error).__name__}: {error}"[:300])
        ) from None


def _separated(blocks: list[tuple[str, bool]]) -> Iterator[str]:
    """Blocks with empty lines between them, but for the items of one list."""
    for n, (text, is_item) in enumerate(blocks):
        yield ("\n" if is_item and blocks[n - 1][1] else "\n\n") if n else ""
        yield text


class _Body:
    """Walks the body; knows what a style says of headings and lists, and counts numbered items."""

    def __init__(self, document: Any) -> None:
        self.body = document.element.body
        self.styles = {style.style_id: style for style in document.styles}
        self.numbered = _numbered_lists(document)
        self.items: Counter[tuple[str, int]] = Counter()

    def blocks(self) -> list[tuple[str, bool]]:
        """Every paragraph and table as Markdown, and whether it is an item of a list."""
        found = [self._block(element) for element in _elements(self.body)]
        return [(text, is_item) for text, is_item in found if text.strip()]

    def _block(self, element: Any) -> tuple[str, bool]:
        if element.tag == _W + "tbl":
            return _table(element), False
        text = _text(element).strip()
        level, item = self._heading(element), self._item(element)
        if text and level:
            return "#" * level + " " + " ".join(text.split()), False
        if text and item:
            return item + text.replace("\n", "\n" + " " * len(item)), True
        return text, False

    def _heading(self, paragraph: Any) -> int:
        """1 to 6, or 0 for text."""
        style = self.styles.get(_value(paragraph, "pPr/pStyle"))
        name = style.name if style is not None else ""
        if name == "Title":
            return 1
        level = name.removeprefix("Heading ") if name.startswith("Heading ") else ""
        return min(int(level), 6) if level.isdecimal() else 0

    def _item(self, paragraph: Any) -> str:
        """What stands before an item of a list, indented by its level; "" for other paragraphs."""
        number, level = _value(paragraph, "pPr/numPr/numId"), _value(paragraph, "pPr/numPr/ilvl")
        style = self.styles.get(_value(paragraph, "pPr/pStyle"))
        if not number and style is not None and style.name.startswith("List "):
            number = _value(style.element, "pPr/numPr/numId") or style.name
        if not number or number == "0":
            return ""
        depth = min(int(level), 8) if level.isdecimal() else 0
        for deeper in range(depth + 1, 9):
            self.items.pop((number, deeper), None)
        self.items[number, depth] += 1
        sign = f"{self.items[number, depth]}. " if (number, depth) in self.numbered else "- "
        return "  " * depth + sign


def _numbered_lists(document: Any) -> set[tuple[str, int]]:
    """(list, level) of the lists that are counted rather than bulleted."""
    try:
        root = document.part.numbering_part.element
    except (KeyError, NotImplementedError):  # no lists in this file
        return set()
    formats = {
        (definition.get(_W + "abstractNumId"), int(level.get(_W + "ilvl", "0"))): _value(level, "numFmt")
        for definition in root.iterfind(_W + "abstractNum")
        for level in definition.iterfind(_W + "lvl")
    }
    uses = {number.get(_W + "numId"): _value(number, "abstractNumId") for number in root.iterfind(_W + "num")}
    return {
        (number, level)
        for number, used in uses.items()
        for (definition, level), form in formats.items()
        if definition == used and form not in ("bullet", "none", "")
    }


def _elements(parent: Any, depth: int = 0) -> Iterator[Any]:
    """Paragraphs and tables in order, also those within content controls and tracked insertions."""
    for child in parent:
        if child.tag in (_W + "p", _W + "tbl"):
            yield child
        elif child.tag in _CONTAINERS and depth < _MOST_DEPTH:
            yield from _elements(child, depth + 1)


def _text(element: Any) -> str:
    """All text below, without what was deleted; paragraphs within (a cell's, a text box's) on lines of their own."""
    out: list[str] = []
    waiting = [element]
    while waiting:
        node = waiting.pop()
        if node.tag == _W + "t":
            out.append(node.text or "")
        elif node.tag in _MARKS:
            out.append(_MARKS[node.tag])
        elif node.tag not in _OUT and node.tag != _FALLBACK:
            if node.tag == _W + "p" and out:
                out.append("\n")
            waiting.extend(reversed(node))
    return "".join(out)


def _table(table: Any) -> str:
    """A Markdown table; one of a single cell is only a frame around text."""
    rows = [[_text(cell) for cell in row.iter(_W + "tc") if _row_of(cell) is row] for row in _rows(table)]
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    width = max(map(len, rows), default=0)
    if width <= 1:
        return "\n\n".join(cell.strip() for row in rows for cell in row)
    lines = ["| " + " | ".join(map(_cell, row + [""] * (width - len(row)))) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])


def _rows(table: Any) -> list[Any]:
    """The table's own rows, not those of tables in its cells."""
    return [row for row in table.iter(_W + "tr") if next(row.iterancestors(_W + "tbl")) is table]


def _row_of(cell: Any) -> Any:
    return next(cell.iterancestors(_W + "tr"))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _value(element: Any, path: str) -> str:
    """The `w:val` of what stands at `path` below an element, "" if nothing does."""
    found = element.find("/".join(_W + step for step in path.split("/")))
    return "" if found is None else found.get(_W + "val", "")
