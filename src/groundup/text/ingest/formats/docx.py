"""DOCX -> one Markdown document, by python-docx: headings, paragraphs, lists and tables in text order.

in:  a word-processing file (Office Open XML)
out: the body text without deleted text of tracked changes, comments, page headers and footers

The body is parsed as XML because python-docx omits inserted text of tracked changes and content controls.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

from groundup.text.ingest.formats._zip_safety import RefusedFile, open_zip, read_member, refuse_many_tags
from groundup.text.ingest.formats.plain import document
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_SKIPPED_TAGS = {_W + "del", _W + "moveFrom", _W + "rPr", _W + "pPr"}
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
"""Fallback for programs without text boxes: it repeats the text box's text."""
_TEXT_OF_TAG = {
    _W + "tab": "\t",
    _W + "br": "\n",
    _W + "cr": "\n",
    _W + "noBreakHyphen": "‑",
}
_CONTAINERS = {_W + tag for tag in ("sdt", "sdtContent", "customXml", "ins", "moveTo", "smartTag")}
_MAX_DEPTH, _MAX_LEVELS = 64, 9
"""Of content controls within each other; of a list, as Office Open XML defines it."""


def read(
    path: str, file: BinaryIO, options: ReadOptions, skip: int = 0
) -> Iterator[ExtractedText | ReadIssue]:
    """The whole file as one document; `skip` is not used."""
    try:
        with open_zip(file, options, "docx") as archive:
            read_member(archive, "[Content_Types].xml", "docx")  # detects encrypted and non-DOCX files early
            for name in archive.namelist():
                if name.endswith((".xml", ".rels")):
                    refuse_many_tags(read_member(archive, name, "docx"))
        file.seek(0)
        blocks = _blocks(file)
    except RefusedFile as refused:
        yield refused.issue
        return
    text = "".join(_separated(blocks)).strip()
    if any(map(str.isalnum, text)):
        yield from document(text, "", options)
    else:
        yield ReadIssue("rejected", "empty")


def _blocks(file: BinaryIO) -> list[tuple[str, bool]]:
    import docx

    try:
        return _Body(docx.Document(file)).blocks()
    except Exception as error:  # python-docx doesn't wrap errors of lxml and zipfile
        raise RefusedFile(
            ReadIssue("rejected", "damaged_docx", detail=f"{type(error).__name__}: {error}"[:300])
        ) from None


def _separated(blocks: list[tuple[str, bool]]) -> Iterator[str]:
    """Blocks separated by empty lines; items of one list by line feeds."""
    for n, (text, is_item) in enumerate(blocks):
        yield ("\n" if is_item and blocks[n - 1][1] else "\n\n") if n else ""
        yield text


class _Body:
    """Converts the body to Markdown blocks; holds paragraph styles and the counters of numbered lists."""

    def __init__(self, document: Any) -> None:
        self.body = document.element.body
        self.styles = {style.style_id: style for style in document.styles}
        self.numbered = _numbered_lists(document)
        self.items: Counter[tuple[str, int]] = Counter()

    def blocks(self) -> list[tuple[str, bool]]:
        """(Markdown, whether it is a list item) of every paragraph and table."""
        blocks = [self._block(element) for element in _elements(self.body)]
        return [(text, is_item) for text, is_item in blocks if text.strip()]

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
        """Heading level 1 to 6, or 0 for body text."""
        style = self.styles.get(_value(paragraph, "pPr/pStyle"))
        name = style.name if style is not None else ""
        if name == "Title":
            return 1
        level = name.removeprefix("Heading ") if name.startswith("Heading ") else ""
        return min(int(level), 6) if level.isdecimal() else 0

    def _item(self, paragraph: Any) -> str:
        """Indented bullet or number of a list item; "" for other paragraphs."""
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
    """(list, level) of numbered lists."""
    try:
        root = document.part.numbering_part.element
    except (KeyError, NotImplementedError):  # the file has no lists
        return set()
    levels = {
        definition.get(_W + "abstractNumId"): [
            int(level.get(_W + "ilvl", "0"))
            for level in islice(definition.iterfind(_W + "lvl"), _MAX_LEVELS)
            if _value(level, "numFmt") not in ("bullet", "none", "")
        ]
        for definition in root.iterfind(_W + "abstractNum")
    }
    return {
        (number.get(_W + "numId"), level)
        for number in root.iterfind(_W + "num")
        for level in levels.get(_value(number, "abstractNumId"), ())
    }


def _elements(parent: Any, depth: int = 0) -> Iterator[Any]:
    """Paragraphs and tables in order, including those inside content controls and tracked insertions."""
    for child in parent:
        if child.tag in (_W + "p", _W + "tbl"):
            yield child
        elif child.tag in _CONTAINERS and depth < _MAX_DEPTH:
            yield from _elements(child, depth + 1)


def _text(element: Any) -> str:
    """Text below an element without deleted text; nested paragraphs (cells, text boxes) are on separate lines."""
    pieces: list[str] = []
    waiting = [element]
    while waiting:
        node = waiting.pop()
        if node.tag == _W + "t":
            pieces.append(node.text or "")
        elif node.tag in _TEXT_OF_TAG:
            pieces.append(_TEXT_OF_TAG[node.tag])
        elif node.tag not in _SKIPPED_TAGS and node.tag != _FALLBACK:
            if node.tag == _W + "p" and pieces:
                pieces.append("\n")
            waiting.extend(reversed(node))
    return "".join(pieces)


def _table(table: Any) -> str:
    """A Markdown table; a table with one column is plain paragraphs."""
    rows = [[_text(cell) for cell in row.iter(_W + "tc") if _row_of(cell) is row] for row in _rows(table)]
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    width = max(map(len, rows), default=0)
    if width <= 1:
        return "\n\n".join(cell.strip() for row in rows for cell in row)
    lines = ["| " + " | ".join(map(_cell, row + [""] * (width - len(row)))) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])


def _rows(table: Any) -> list[Any]:
    """Rows of the table, without rows of nested tables."""
    return [row for row in table.iter(_W + "tr") if next(row.iterancestors(_W + "tbl")) is table]


def _row_of(cell: Any) -> Any:
    return next(cell.iterancestors(_W + "tr"))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _value(element: Any, path: str) -> str:
    """The `w:val` attribute of the element at `path`, "" if it is missing."""
    match = element.find("/".join(_W + step for step in path.split("/")))
    return "" if match is None else match.get(_W + "val", "")
