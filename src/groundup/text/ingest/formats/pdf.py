"""PDF -> text layer as one document, by PDFium (pypdfium2).

in:  a PDF
out: its pages joined into running text; unreadable pages are reported, the others are kept

A scan without a text layer is rejected: there is no OCR. Running headers and footers, page numbers among them, are
removed.
"""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from groundup.text.ingest.formats._pdf_pages import join_hyphenated
from groundup.text.ingest.formats.plain import document
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions
from groundup.text.subprocess_server import SubprocessServer, subprocess_server

MAX_PAGES = 20_000
PAGE_SECONDS = 20.0
"""CPU time limit per page."""
MAX_DEATHS = 3
"""Pages of one file that may crash the subprocess before the rest of the file is skipped."""
MAX_ISSUES = 100
"""Unreadable pages reported one by one: a file of a kilobyte can declare millions."""
RUNNING_PAGES = 3
"""Pages that must share a first or last line before it is removed as a running header or footer."""

_DIGITS = re.compile(r"\d+|^[ivxlc]+$")
_SENTENCE_END = (".", "!", "?", ":", ";", '"', "”", "»", "。")


_Lines = tuple[tuple[str, str], ...]
"""(separator from the previous line, line)."""


@dataclass(frozen=True, slots=True)
class _Page:
    number: int
    lines: _Lines = ()
    reason: str = ""
    detail: str = ""


def read(
    path: str, file: BinaryIO, options: ReadOptions, skip: int = 0
) -> Iterator[ExtractedText | ReadIssue]:
    """The whole file as one document; `skip` is not used."""
    data = file.read(options.max_file_bytes + 1)
    if len(data) > options.max_file_bytes:
        yield ReadIssue("rejected", "too_large", value=len(data), threshold=options.max_file_bytes)
        return
    pages: list[_Page] = []
    limit, chars = max(1 << 20, int(len(data) * options.max_expansion)), 0
    for page in _pages(data):
        if isinstance(page, ReadIssue):
            yield page
            if page.outcome == "rejected":
                return
            continue
        chars += sum(len(line) for _, line in page.lines)
        if chars > limit:
            yield ReadIssue("rejected", "expands_too_much", value=chars, threshold=limit, detail="pdf")
            return
        pages.append(page)
    lines = [page.lines for page in pages if page.lines]
    text = _join_pages(lines, _running_lines(lines)) or _join_pages(
        lines, set()
    )  # only running lines: keep them
    failed = [page for page in pages if page.reason]
    if not any(map(str.isalnum, text)):
        first = failed[0] if failed else _Page(0, reason="no_text_layer")
        yield ReadIssue("rejected", first.reason, value=len(pages), detail=first.detail)
        return
    for page in failed[:MAX_ISSUES]:
        yield ReadIssue("rejected", page.reason, f"page{page.number + 1}", detail=page.detail)
    if len(failed) > MAX_ISSUES:
        yield ReadIssue("changed", "damaged_pages", value=len(failed), detail="only the first are listed")
    yield from document(text, "", options)


def _pages(data: bytes) -> Iterator[_Page | ReadIssue]:
    """Pages from the subprocess, which is restarted after a page that crashed it."""
    first = deaths = 0
    while True:
        for answer in _request_pages(data, first):
            if "refused" in answer:
                yield ReadIssue("rejected", answer["refused"], detail=answer["detail"])
                return
            if "pages" in answer:
                if answer["pages"] > MAX_PAGES:
                    yield ReadIssue("changed", "too_many_pages", value=answer["pages"], threshold=MAX_PAGES)
                return
            first = answer["page"] + 1
            failed = answer.get("failed", "")
            lines = tuple((between, line) for between, line in answer.get("lines", ()))
            yield _Page(answer["page"], lines, "damaged_page" if failed else "", failed)
        deaths += 1
        yield _Page(first, reason="too_costly", detail="exceeds the time or memory limit of a page")
        first += 1
        if deaths == MAX_DEATHS:
            yield ReadIssue("changed", "too_costly", value=first, detail=f"pages after {first} are not read")
            return


def _request_pages(data: bytes, first: int) -> Iterator[dict[str, Any]]:
    """Answers of the subprocess; they end early if it crashes."""
    server = _page_server()
    with server.lock:
        request = {"bytes": len(data), "first": first, "most": MAX_PAGES, "seconds": PAGE_SECONDS}
        try:
            server.requests.write(json.dumps(request).encode() + b"\n" + data)
            server.requests.flush()
        except BrokenPipeError:
            server.stop()
            return
        finished = False
        try:
            for line in server.responses:
                if not line.endswith(b"\n"):
                    break
                answer: dict[str, Any] = json.loads(line)
                finished = "pages" in answer or "refused" in answer
                yield answer
                if finished:
                    break
        finally:
            if not finished:  # crashed, or the consumer stopped early
                server.stop()


def _page_server() -> SubprocessServer:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUTF8": "1"}
    command = (sys.executable, "-P", "-m", "groundup.text.ingest.formats._pdf_pages")
    return subprocess_server(command, tuple(sorted(environment.items())))


def _running_lines(pages: list[_Lines]) -> set[str]:
    """Normalized lines that are running headers or footers."""
    edges = Counter(shape for lines in pages for shape in {_shape(lines[0][1]), _shape(lines[-1][1])})
    return {shape for shape, number in edges.items() if number >= max(RUNNING_PAGES, len(pages) // 4)}


def _join_pages(pages: list[_Lines], running_lines: set[str]) -> str:
    """Text of all pages without running lines; paragraphs that continue on the next page are joined."""
    pieces: list[str] = []
    for lines in pages:
        first, last = 0, len(lines)
        while first < last and _shape(lines[first][1]) in running_lines:
            first += 1
        while first < last and _shape(lines[last - 1][1]) in running_lines:
            last -= 1
        for n, (between, line) in enumerate(lines[first:last]):
            if not pieces:
                pieces.append(line)
                continue
            if n == 0:
                between = " " if line[0].islower() and not pieces[-1].endswith(_SENTENCE_END) else "\n\n"
            pieces[-1], between = join_hyphenated(pieces[-1], between, line)
            pieces += (between, line)
    return "".join(pieces)


def _shape(line: str) -> str:
    """A line with its numbers normalized: `Chapter 2  17` and `Chapter 2  18` are equal."""
    return _DIGITS.sub("#", line.strip()) if len(line) < 120 else line
