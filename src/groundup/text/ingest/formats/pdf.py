"""PDF -> the text in its text layer, as one document, by PDFium (pypdfium2).

in:  a PDF
out: its pages joined into running text; a page that can't be read is noted, the others are kept

What is only a picture of text (a scan) has no text layer and goes aside: nothing here recognises letters.
Lines that stand at the head or foot of many pages, page numbers among them, are left out.
"""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from groundup.text.ingest.formats._pdf_pages import mend
from groundup.text.ingest.types import ExtractedText, Options, ReadIssue
from groundup.text.subprocess_server import Helper, helper

MOST_PAGES = 20_000
PAGE_SECONDS = 20.0
"""Of processor time."""
MOST_DEATHS = 3
"""Pages of one file that may exhaust the helper; the rest is then left unread."""
MOST_NOTES = 100
"""Unreadable pages that are named one by one: a file of a kilobyte can claim to have millions."""
RUNNING_PAGES = 3
"""Pages on which a line stands at the edge before it counts as a running head or foot."""

_DIGITS = re.compile(r"\d+|^[ivxlc]+$")
_SENTENCE_END = (".", "!", "?", ":", ";", '"', "”", "»", "。")


_Lines = tuple[tuple[str, str], ...]
"""What separates a line from the one before, and the line."""


@dataclass(frozen=True, slots=True)
class _Page:
    number: int
    lines: _Lines = ()
    reason: str = ""
    detail: str = ""


def read(path: str, file: BinaryIO, options: Options, skip: int = 0) -> Iterator[ExtractedText | ReadIssue]:
    """The whole file as one document. `skip` has no meaning here."""
    data = file.read(options.file_bytes + 1)
    if len(data) > options.file_bytes:
        yield ReadIssue("aside", "too_large", value=len(data), threshold=options.file_bytes)
        return
    pages: list[_Page] = []
    limit, chars = max(1 << 20, int(len(data) * options.expansion)), 0
    for found in _pages(data):
        if isinstance(found, ReadIssue):
            yield found
            if found.fate == "aside":
                return
            continue
        chars += sum(len(line) for _, line in found.lines)
        if chars > limit:
            yield ReadIssue("aside", "expands_too_much", value=chars, threshold=limit, detail="pdf")
            return
        pages.append(found)
    lines = [page.lines for page in pages if page.lines]
    text = _joined(lines, _running(lines)) or _joined(
        lines, set()
    )  # nothing but heads: then they are the text
    failed = [page for page in pages if page.reason]
    if not any(map(str.isalnum, text)):
        first = failed[0] if failed else _Page(0, reason="no_text_layer")
        yield ReadIssue("aside", first.reason, value=len(pages), detail=first.detail)
        return
    for page in failed[:MOST_NOTES]:
        yield ReadIssue("aside", page.reason, f"page{page.number + 1}", detail=page.detail)
    if len(failed) > MOST_NOTES:
        yield ReadIssue("changed", "damaged_pages", value=len(failed), detail="only the first are named")
    yield ExtractedText(text)


def _pages(data: bytes) -> Iterator[_Page | ReadIssue]:
    """Page by page from the helper; started again behind a page that killed it."""
    first = deaths = 0
    while True:
        for said in _ask(data, first):
            if "refused" in said:
                yield ReadIssue("aside", said["refused"], detail=said["detail"])
                return
            if "pages" in said:
                if said["pages"] > MOST_PAGES:
                    yield ReadIssue("changed", "too_many_pages", value=said["pages"], threshold=MOST_PAGES)
                return
            first = said["page"] + 1
            failed = said.get("failed", "")
            lines = tuple((between, line) for between, line in said.get("lines", ()))
            yield _Page(said["page"], lines, "damaged_page" if failed else "", failed)
        deaths += 1
        yield _Page(first, reason="too_costly", detail="more time or memory than a page may take")
        first += 1
        if deaths == MOST_DEATHS:
            yield ReadIssue(
                "changed", "too_costly", value=first, detail=f"nothing was read behind page {first}"
            )
            return


def _ask(data: bytes, first: int) -> Iterator[dict[str, Any]]:
    """The helper's answers; they end early if it dies."""
    running = _helper()
    with running.lock:
        asked = {"bytes": len(data), "first": first, "most": MOST_PAGES, "seconds": PAGE_SECONDS}
        try:
            running.requests.write(json.dumps(asked).encode() + b"\n" + data)
            running.requests.flush()
        except BrokenPipeError:
            running.stop()
            return
        finished = False
        try:
            for line in running.answers:
                if not line.endswith(b"\n"):
                    break
                said: dict[str, Any] = json.loads(line)
                finished = "pages" in said or "refused" in said
                yield said
                if finished:
                    break
        finally:
            if not finished:  # dead, or nobody wants to know the rest
                running.stop()


def _helper() -> Helper:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUTF8": "1"}
    command = (sys.executable, "-P", "-m", "groundup.text.ingest.formats._pdf_pages")
    return helper(command, tuple(sorted(environment.items())))


def _running(pages: list[_Lines]) -> set[str]:
    """The shapes of running heads and feet."""
    edges = Counter(shape for lines in pages for shape in {_shape(lines[0][1]), _shape(lines[-1][1])})
    return {shape for shape, number in edges.items() if number >= max(RUNNING_PAGES, len(pages) // 4)}


def _joined(pages: list[_Lines], running: set[str]) -> str:
    """Pages without their running heads and feet; a paragraph that goes on over a page end stays whole."""
    out: list[str] = []
    for lines in pages:
        first, last = 0, len(lines)
        while first < last and _shape(lines[first][1]) in running:
            first += 1
        while first < last and _shape(lines[last - 1][1]) in running:
            last -= 1
        for n, (between, line) in enumerate(lines[first:last]):
            if not out:
                out.append(line)
                continue
            if n == 0:
                between = " " if line[0].islower() and not out[-1].endswith(_SENTENCE_END) else "\n\n"
            out[-1], between = mend(out[-1], between, line)
            out += (between, line)
    return "".join(out)


def _shape(line: str) -> str:
    """A line at the edge of a page with its numbers alike: `Chapter 2  17` and `Chapter 2  18` are one."""
    return _DIGITS.sub("#", line.strip()) if len(line) < 120 else line
