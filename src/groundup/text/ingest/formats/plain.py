"""Text, Markdown, source code -> one document, or one per part between separators.

in:  a file of any size
out: its text, decoded, with LF line ends; a large file is read in pieces, cut between documents or paragraphs

`document` is the check that every format applies to a text before it becomes a document.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import BinaryIO

from groundup.text.ingest.decode import (
    CONTROL_BYTES,
    MAX_CONTROL_SHARE,
    Undecodable,
    as_utf8,
    byte_order_mark,
    decode,
    is_binary,
    unix_lines,
    without_nuls,
    without_surrogates,
)
from groundup.text.ingest.formats.separate import divide, last_end
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions

PIECE_BYTES = 16 << 20
"""Size of the pieces in which a large file is read."""


def read(
    path: str, file: BinaryIO, options: ReadOptions, skip: int = 0
) -> Iterator[ExtractedText | ReadIssue]:
    """The whole file as one document, or its parts at positions "1", "2" ... after the first `skip`."""
    head = file.read(PIECE_BYTES + 1)
    if len(head) <= PIECE_BYTES:
        yield from _whole_file(head, options, skip)
        return
    chunks = as_utf8(chain([head], iter(partial(file.read, PIECE_BYTES), b"")), byte_order_mark(head))
    number = 0
    for piece in _pieces(chunks, options.separator):
        for part in _parts(piece, options, number):
            number += 1
            if number == 1 and _is_not_text(part[0], piece):
                yield replace(part[0], position="")
                return
            yield from part if number > skip else ()


def _whole_file(data: bytes, options: ReadOptions, skip: int) -> Iterator[ExtractedText | ReadIssue]:
    """A file without separators is one document at position ""."""
    parts = _parts(data, options, 0)
    first, second = next(parts), next(parts, None)
    if second is None:
        yield from (replace(item, position="") for item in first)
        return
    for part in islice(chain([first, second], parts), skip, None):
        yield from part


def _parts(data: bytes, options: ReadOptions, before: int) -> Iterator[list[ExtractedText | ReadIssue]]:
    """The items of each document in `data`, at the positions after `before`."""
    try:
        decoded = decode(data)
    except Undecodable as error:
        issue = ReadIssue("rejected", error.reason, str(before + 1), error.value, error.threshold)
        yield [issue]
        return
    issues = [ReadIssue("changed", decoded.reason, str(before + 1), decoded.value)] if decoded.reason else []
    for number, text in enumerate(divide(decoded.text, options.separator), before + 1):
        items = list(document(text, str(number), options))
        if issues and isinstance(items[-1], ExtractedText):
            items, issues = [*issues, *items], []
        yield items


def _is_not_text(first: ExtractedText | ReadIssue, piece: bytes) -> bool:
    """Whether the first piece of a large file shows that it is no text: binary, or without any line end."""
    reason = first.reason if isinstance(first, ReadIssue) and first.outcome == "rejected" else ""
    return reason == "binary" or (reason == "line_too_long" and b"\n" not in piece)


def _pieces(chunks: Iterator[bytes], separator: str) -> Iterator[bytes]:
    """Chunks cut at their last separator, else at their last blank line, else at their last line."""
    rest = b""
    for chunk in chunks:
        rest += chunk
        at = last_end(rest, separator)
        if not at:
            at = rest.rfind(b"\n\n", 1) + 2 if b"\n\n" in rest[1:] else rest.rfind(b"\n") + 1
        at = at or len(rest)
        yield rest[:at]
        rest = rest[at:]
    if rest:
        yield rest


def document(
    value: object, position: str, options: ReadOptions, declared: str = "", **about: str
) -> Iterator[ExtractedText | ReadIssue]:
    """A value (bytes or a string) as a document, or the issue why it is none.

    declared: encoding that the file declares for bytes; may be wrong. about: other fields of ExtractedText.
    """
    if value is None:
        yield ReadIssue("rejected", "empty", position)
        return
    if isinstance(value, bytes):
        try:
            decoded = decode(value, declared)
        except Undecodable as error:
            yield ReadIssue("rejected", error.reason, position, error.value, error.threshold)
            return
        text, reason, number = decoded.text, decoded.reason, decoded.value
    else:
        text, replaced = without_surrogates(unix_lines(str(value)))
        reason, number = ("lone_surrogates_replaced", float(replaced)) if replaced else ("", None)
    refused = _refused(text, position, options.max_line_bytes)
    if refused:
        yield refused
        return
    text, nuls = without_nuls(text)
    if nuls and not reason:
        reason, number = "nul_bytes_removed", float(nuls)
    if reason:
        yield ReadIssue("changed", reason, position, number)
    yield ExtractedText(text, position, **about)


def _refused(text: str, position: str, line_bytes: int) -> ReadIssue | None:
    """Why a text is no document: empty, binary, or with a line above the limit."""
    if not text.strip():
        return ReadIssue("rejected", "empty", position)
    data = text.encode()
    controls = len(data) - len(data.translate(None, CONTROL_BYTES))
    if is_binary(controls, len(data)):
        return ReadIssue("rejected", "binary", position, controls / len(data), MAX_CONTROL_SHARE)
    if len(data) <= line_bytes:
        return None
    longest = max(map(len, data.split(b"\n")))
    return (
        ReadIssue("rejected", "line_too_long", position, longest, line_bytes)
        if longest > line_bytes
        else None
    )
