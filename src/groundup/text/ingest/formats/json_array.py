"""JSON array, or pretty-printed JSON objects one after another -> a document per object, read as a stream.

in:  `[{"text": ...}, ...]`, compact or indented
out: the text of each object; its position is its number (from 1)
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from groundup.text.ingest.decode import utf8_chunks
from groundup.text.ingest.formats.jsonl import parsed, row_documents
from groundup.text.ingest.formats.rows import MAX_RECORD_BYTES, MAX_VALUES
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions, Row

_CHUNK = 1 << 16
_BETWEEN = b" \t\r\n,"
_OUTSIDE = re.compile(rb'["\[\]{}]')
_INSIDE = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_QUOTE, _OPENING = 34, b"[{"
_MAX_TOKENS = 4 * MAX_VALUES


def read(
    path: str, file: BinaryIO, options: ReadOptions, skip: int = 0
) -> Iterator[ExtractedText | ReadIssue]:
    """A document for each object after the first `skip`."""
    yield from row_documents(rows(path, file, options, skip), options)


def rows(path: str, file: BinaryIO, options: ReadOptions, skip: int = 0) -> Iterator[Row | ReadIssue]:
    """The value of each object after the first `skip`."""
    encoding, chunks = utf8_chunks(iter(partial(file.read, _CHUNK), b""))
    if encoding:
        yield ReadIssue("changed", f"decoded_as_{encoding}")
    number = 0
    limit = min(options.max_file_bytes, MAX_RECORD_BYTES)
    for number, (value, size) in enumerate(_values(chunks, limit), 1):
        if number <= skip:
            continue
        if size < 0:
            yield ReadIssue(
                "rejected", "too_costly", str(number), detail=f"more than {_MAX_TOKENS} brackets and strings"
            )
        elif size > limit:
            yield ReadIssue("rejected", "too_large", str(number), size, limit)
        else:
            yield parsed(value, str(number))
    if not number:
        yield ReadIssue("rejected", "empty")


def _values(chunks: Iterator[bytes], max_bytes: int) -> Iterator[tuple[bytes, int]]:
    """(bytes, size) of each value of an array, or of each top-level object.

    A value of more than `max_bytes` is cut; one of more than _MAX_TOKENS has the size -1 and ends the reading. Bytes
    between values, or not closed at the end, are given as they are, to be reported as bad JSON.
    """
    scanner = _Scanner()
    dropped = 0
    for chunk in chunks:
        scanner.buffer += chunk
        for value in scanner.complete():
            yield value.strip(_BETWEEN), dropped + len(value)
            dropped = 0
        if scanner.tokens > _MAX_TOKENS:
            yield b"", -1
            return
        dropped += scanner.cut(max_bytes)
    rest = bytes(scanner.buffer).strip(_BETWEEN + b"]")
    if rest:
        yield rest, dropped + len(rest)


class _Scanner:
    """Finds the ends of top-level values in a growing buffer; `tokens` counts brackets and strings of the open one."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.tokens = self._at = self._depth = 0
        self._in_string = self._begun = False

    def complete(self) -> Iterator[bytes]:
        """The values that end in the buffer; they are removed from it."""
        if not self._begun:
            self.buffer[:] = self.buffer.lstrip()
            self._begun = bool(self.buffer)
            if self.buffer.startswith(b"["):
                del self.buffer[:1]
        start = 0
        while self._next_bracket() and self.tokens <= _MAX_TOKENS:
            self._depth += 1 if self.buffer[self._at - 1] in _OPENING else -1
            if self._depth <= 0:
                value = bytes(self.buffer[start : self._at - (self._depth < 0)])  # without the array's end
                start, self._depth, self.tokens = self._at, 0, 0
                if value.strip(_BETWEEN):
                    yield value
        del self.buffer[:start]
        self._at -= start

    def cut(self, max_bytes: int) -> int:
        """Removes what the open value has above `max_bytes`; returns the number of bytes."""
        surplus = len(self.buffer) - max_bytes - _CHUNK
        if surplus <= 0:
            return 0
        del self.buffer[max_bytes : max_bytes + surplus]
        self._at -= surplus
        return surplus

    def _next_bracket(self) -> bool:
        """Moves behind the next bracket outside of strings; False if the buffer has none any more."""
        while True:
            if self._in_string:
                inside = _INSIDE.match(self.buffer, self._at)
                assert inside
                self._at = inside.end()
                if self._at >= len(self.buffer) or self.buffer[self._at] != _QUOTE:
                    return False
                self._at, self._in_string = self._at + 1, False
            token = _OUTSIDE.search(self.buffer, self._at)
            if not token:
                self._at = len(self.buffer)
                return False
            self._at = token.end()
            self.tokens += 1
            if self.buffer[self._at - 1] != _QUOTE:
                return True
            self._in_string = True
