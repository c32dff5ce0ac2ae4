"""Text, Markdown, source code -> one document. Also what every format asks of a text before it is one.

in:  a file of any size
out: its text, decoded, with LF line ends; a large one in pieces, cut between paragraphs
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
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
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions

PIECE_BYTES = 16 << 20
"""About the most of a file that is held at once."""


def read(
    path: str, file: BinaryIO, options: ReadOptions, skip: int = 0
) -> Iterator[ExtractedText | ReadIssue]:
    """The whole file as one document; of one larger than PIECE_BYTES a document per piece."""
    first = file.read(PIECE_BYTES + 1)
    if len(first) <= PIECE_BYTES:
        yield from document(first, "", options)
        return
    rest = iter(partial(file.read, PIECE_BYTES), b"")
    chunks = as_utf8(chain([first], rest), byte_order_mark(first))
    for number, piece in enumerate(_pieces(chunks), 1):
        if number > skip:
            items = list(document(piece, str(number), options))
            if number == 1 and _is_not_text(items[0], piece):
                yield replace(items[0], position="")
                return
            yield from items


def _is_not_text(found: ExtractedText | ReadIssue, piece: bytes) -> bool:
    """Whether a file's first piece shows that none of it is text: 16 MB of something else, or without a line end."""
    said = found.reason if isinstance(found, ReadIssue) and found.outcome == "rejected" else ""
    return said == "binary" or (said == "line_too_long" and b"\n" not in piece)


def _pieces(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Chunks cut at their last blank line, or line, if they have one."""
    begun = b""
    for chunk in chunks:
        begun += chunk
        at = begun.rfind(b"\n\n", 1) + 2 if b"\n\n" in begun[1:] else begun.rfind(b"\n") + 1
        at = at or len(begun)
        yield begun[:at]
        begun = begun[at:]
    if begun:
        yield begun


def document(
    value: object, position: str, options: ReadOptions, declared: str = "", **about: str
) -> Iterator[ExtractedText | ReadIssue]:
    """A value out of a file (bytes or a string) as a document, or the note why it isn't one.

    declared: the encoding that is said to be that of bytes; needn't be right.
    about: the other fields of `Text` that the file says (path, licence, language).
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
    """Why a text is no document: nothing in it, not text, or a line longer than any person writes."""
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
