"""Subprocess that extracts the text of PDF pages: `python -m groundup.text.ingest.formats._pdf_pages`.

in:  a JSON line {"bytes": n, "first": page, "most": pages, "seconds": per page}, then the n bytes of the file
out: a JSON line per page: {"page", "lines"} or {"page", "failed"}; then {"pages"}, or {"refused"} alone

PDFium is C++ code that parses untrusted files, and a page of a kilobyte can draw itself a billion times. So CPU time
per page and memory of the process are limited; at either limit the process is killed and the reader continues with
the next page.
"""

import json
import re
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

MEMORY = 1536 << 20
MAX_PAGE_CHARS = 1 << 20

_PASSWORD, _SECURITY = 4, 5
_HYPHEN = "\ufffe"
"""PDFium's character for a hyphen at a line end; it joins the two halves itself."""
_GONE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff\ud800-\udfff]")
_LIGATURES = str.maketrans(dict(zip("ﬀﬁﬂﬃﬄﬅﬆ", ("ff", "fi", "fl", "ffi", "ffl", "ft", "st"), strict=True)))
_ITEM = re.compile(r"[•‣◦▪·–—*o-] |[\[(]?(\d{1,3}|[a-zA-Z])[.)\]]\s")
_NEAR, _PROSE_LINES, _PROSE_SHARE = 5.0, 6, 0.35


@dataclass(frozen=True, slots=True)
class Line:
    """A text line with its position in points from the lower left corner; two lines joined by a hyphen are one.

    height: font height with ascenders and descenders; word: width of the first word with a space;
    char: mean character width
    """

    text: str
    left: float
    right: float
    top: float
    bottom: float
    height: float
    word: float
    char: float = 1.0


def line_separators(lines: list[Line], middle: float) -> list[tuple[str, str]]:
    """(separator, text) of each line: a space after a wrapped line, an empty line at a gap or an indent.

    middle: x coordinate where a second column would start
    """
    gaps = [above.bottom - below.top for above, below in pairwise(lines)]
    usual = median([gap for gap, line in zip(gaps, lines, strict=False) if abs(gap) < 2 * line.height] or [0])
    # A line is wrapped if the next line's first word would not have fitted.
    margins = _margins(lines, middle)
    wrapped = [
        line.right + after.word > edge for (line, after), edge in zip(pairwise(lines), margins, strict=False)
    ]
    wrapped.append(False)
    joined, block = [("", line.text) for line in lines[:1]], lines[:1]
    for n, (before, line) in enumerate(pairwise(lines)):
        between = _between(before, line, gaps[n] - usual, wrapped[n], wrapped[n + 1])
        if between == "\n\n":
            block = [line]
        elif between == "\n":  # code and nested lists keep their shape
            between += " " * min(40, max(0, round((line.left - block[0].left) / line.char)))
        joined.append((between, line.text))
    return joined


def join_hyphenated(before: str, between: str, after: str) -> tuple[str, str]:
    """(before, between) with a word that is hyphenated across the two lines joined."""
    if between != "\n\n" and before[-2:-1].isalpha() and before[-1] in "-\xad‐" and after[:1].islower():
        compound = "-" in before[-40:-1].rsplit(None, 1)[-1]
        return before[:-1], "-" if compound else ""
    return before, between


def _between(before: Line, line: Line, gap: float, wrapped: bool, goes_on: bool) -> str:
    """Separator of two lines. gap: beyond the usual one; wrapped, goes_on: whether each continues on the next."""
    height = max(before.height, line.height)
    indented = line.left - before.left > 0.8 * height
    if abs(before.bottom - line.bottom) < 0.3 * height and line.left >= before.right:
        return "\t"  # cells of one row
    if gap < -2 * height:  # back to the top: a column ended
        return " " if wrapped and line.text[:1].islower() else "\n\n"
    if gap > 0.35 * height or abs(before.height - line.height) > 0.15 * height:
        return "\n\n"
    if _ITEM.match(line.text) or (before.text[-1].isdigit() and line.text[-1].isdigit()):
        return "\n"
    if not wrapped:
        return "\n\n" if indented and goes_on else "\n"
    return " "


def _margins(lines: list[Line], middle: float) -> list[float]:
    """Right margin of each line; infinite where the lines aren't wrapped prose."""
    sides = [(line.left >= middle) - (line.right <= middle) for line in lines]
    if sides.count(1) < _PROSE_LINES and 0 in sides:  # a single column
        sides = [0] * len(lines)
    margin: dict[int, float] = {}
    for side in set(sides):
        own = [line for line, where in zip(lines, sides, strict=True) if where == side]
        edge = max(line.right for line in own)
        full = sum(line.right > edge - _NEAR * line.height for line in own)
        margin[side] = edge if full >= _PROSE_SHARE * len(own) else float("inf")
    return [margin[side] for side in sides]


def _lines(page: Any) -> Iterator[Line]:
    """Lines of a page with positions; without positions where PDFium's character count differs from Python's."""
    textpage = page.get_textpage()
    count = textpage.count_chars()
    if count > MAX_PAGE_CHARS:
        raise ValueError(f"{count} characters on one page")
    text = textpage.get_text_range() if count else ""
    placed, at = len(text) == count, 0
    for raw in text.split("\r\n"):
        clean = _clean(raw)
        if clean:
            first, last = at + len(raw) - len(raw.lstrip()), at + len(raw.rstrip()) - 1
            word_end = first + len(clean.split(None, 1)[0]) - 1
            if placed:
                left, low, _, top = textpage.get_charbox(first, loose=True)
                _, bottom, right, _ = textpage.get_charbox(last, loose=True)
                word = textpage.get_charbox(min(word_end, last), loose=True)[2]
                height = max(top - low, 0.1)
                char = max((word - left) / (word_end - first + 1), 0.1)
                yield Line(clean, left, right, top, bottom, height, max(word - left, 0.0) + height / 4, char)
            else:
                yield Line(clean, 0.0, 0.0, -1.0 * at, -1.0 * at, 1.0, 0.0)
        at += len(raw) + 2


def _clean(line: str) -> str:
    halves = line.translate(_LIGATURES).split(_HYPHEN)
    for n, half in enumerate(halves[1:]):
        before, between = join_hyphenated(halves[n] + "-", "", half.lstrip())
        halves[n], halves[n + 1] = before + between, half.lstrip()
    return _GONE.sub("", "".join(halves)).strip()


def _answer(**payload: Any) -> None:
    sys.stdout.write(json.dumps(payload) + "\n")
    sys.stdout.flush()


def _serve(data: bytes, first: int, max_pages: int, seconds: float) -> None:
    import pypdfium2

    # PDFium doesn't set its last error for every failure: without this, that of an earlier file would be reported.
    with suppress(pypdfium2.PdfiumError):
        pypdfium2.PdfDocument(b"no PDF")
    try:
        pdf = pypdfium2.PdfDocument(data)
        pages = len(pdf)
    except pypdfium2.PdfiumError as error:
        code = getattr(error, "err_code", None)
        reason = "encrypted" if code in (_PASSWORD, _SECURITY) else "damaged_pdf"
        _answer(refused=reason, detail="" if reason == "encrypted" else str(error))
        return
    for number in range(first, min(pages, max_pages)):
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            page = pdf[number]
            _answer(page=number, lines=line_separators(list(_lines(page)), page.get_width() / 2))
            page.close()
        except (pypdfium2.PdfiumError, ValueError) as error:
            _answer(page=number, failed=str(error))
    signal.setitimer(signal.ITIMER_PROF, 0)
    pdf.close()
    _answer(pages=pages)


def _main() -> None:
    while header := sys.stdin.buffer.readline():
        request = json.loads(header)
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = MEMORY + 2 * request["bytes"]
        resource.setrlimit(resource.RLIMIT_AS, (min(limit, hard) if hard > 0 else limit, hard))
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        data = sys.stdin.buffer.read(request["bytes"])
        _serve(data, request["first"], request["most"], request["seconds"])


if __name__ == "__main__":
    _main()
