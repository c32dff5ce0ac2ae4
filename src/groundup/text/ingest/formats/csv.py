"""CSV and its kin (tabs, semicolons, pipes) -> a document per row, read as a stream.

in:  a table whose first row names its columns; a field in quotes may hold line ends
out: the text of each row, at the position of its number (the first one below the names is 1)
"""

import csv
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from groundup.text.ingest.decode import Undecodable, decode
from groundup.text.ingest.formats.jsonl import spelled
from groundup.text.ingest.formats.plain import document
from groundup.text.ingest.types import ExtractedText, Options, ReadIssue

_SAMPLE = 1 << 18
_DELIMITERS = ",\t;|"
_MOST_CHARS = 32 << 20
"""Of a field: as much as a quote that is never closed swallows before it is noticed."""
_Row = list[str] | csv.Error


def read(path: str, file: BinaryIO, options: Options, skip: int = 0) -> Iterator[ExtractedText | ReadIssue]:
    """A document for each row behind the first `skip`; rows of another width than the first are noted."""
    sample = file.read(_SAMPLE)
    try:
        decoded = decode(_whole_lines(sample))
    except Undecodable as error:
        yield ReadIssue("aside", error.reason, value=error.value, threshold=error.threshold)
        return
    if decoded.reason.startswith("decoded_as"):
        yield ReadIssue("changed", decoded.reason)
    # Bytes that are no UTF-8 travel as lone surrogates, to be noted with their row.
    encoding = "utf-8-sig" if decoded.encoding == "utf-8" else decoded.encoding
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    text = io.TextIOWrapper(io.BufferedReader(_Joined(sample, file)), encoding, errors, newline="")
    delimiter = _delimiter(decoded.text, options.fields["text"])
    rows = _rows(text, delimiter, options.file_bytes)
    names = next(rows, [])
    if isinstance(names, csv.Error):
        yield ReadIssue("aside", "bad_row", detail=str(names)[:300])
        return
    if options.fields["text"] not in names:
        detail = f"no column {options.fields['text']!r}; there are: {', '.join(names)}"
        yield ReadIssue("aside", "no_text_field", detail=detail[:300])
        return
    number = 0
    for number, row in enumerate(rows, 1):
        if number > skip:
            yield from _record(row, names, str(number), options)
    if not number:
        yield ReadIssue("aside", "empty")


def _record(
    row: _Row, names: list[str], position: str, options: Options
) -> Iterator[ExtractedText | ReadIssue]:
    if isinstance(row, csv.Error):
        yield ReadIssue("aside", "bad_row", position, detail=str(row)[:300])
    elif len(row) != len(names):
        yield ReadIssue(
            "aside", "bad_row", position, len(row), len(names), "fields, and how many there should be"
        )
    else:
        record = dict(zip(names, row, strict=True))
        about = {name: record.get(key, "") for name, key in options.fields.items() if name != "text"}
        text = record[options.fields["text"]]
        raw = text if text.isascii() else text.encode("utf-8", "surrogateescape")
        yield from document(raw, position, options, **spelled(about))


def _rows(text: io.TextIOWrapper, delimiter: str, most: int) -> Iterator[_Row]:
    """The rows that aren't empty. One that can't be read is its error; the next line begins another."""
    csv.field_size_limit(min(most, _MOST_CHARS))
    # Strict, lest a quote that is never closed makes one document of all the rows behind it.
    reader = csv.reader(_bounded(text, min(most, _MOST_CHARS)), delimiter=delimiter, strict=True)
    while True:
        try:
            row: _Row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row = error
        except UnicodeError as error:  # a decoder that has lost its way for good
            yield csv.Error(str(error))
            return
        if row:
            yield row


def _bounded(text: io.TextIOWrapper, most: int) -> Iterator[str]:
    """Lines with their ends. A longer one than `most` characters is cut: its pieces are rows that don't fit."""
    return iter(lambda: text.readline(most), "")


def _delimiter(sample: str, wanted: str) -> str:
    """The delimiter that finds the wanted column among the names, else the one that makes most columns."""
    first = io.StringIO(sample, newline="")

    def names(delimiter: str) -> list[str]:
        first.seek(0)
        try:
            return next(csv.reader(first, delimiter=delimiter), [])
        except csv.Error:
            return []

    return max(_DELIMITERS, key=lambda delimiter: (wanted in names(delimiter), len(names(delimiter))))


def _whole_lines(sample: bytes) -> bytes:
    """Up to the last line end, so that no character is cut in two."""
    return sample[: sample.rfind(b"\n") + 1 or len(sample)] if len(sample) == _SAMPLE else sample


class _Joined(io.RawIOBase):
    """What was read of a file already, then the rest of it; it stays open."""

    def __init__(self, begun: bytes, file: BinaryIO) -> None:
        self.begun, self.file = begun, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.begun[: len(buffer)] or self.file.read(len(buffer))
        self.begun = self.begun[len(data) :]
        buffer[: len(data)] = data
        return len(data)
