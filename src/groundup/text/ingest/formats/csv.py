"""CSV (also with tabs, semicolons or pipes) -> one document per row, read as a stream.

in:  a table whose first row names its columns; quoted fields may contain line ends
out: the text of each row; its position is the row number (the first row below the names is 1)
"""

import csv
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from groundup.text.ingest.decode import Undecodable, decode
from groundup.text.ingest.formats.plain import document
from groundup.text.ingest.formats.rows import layout_columns, missing_text, row_text, to_strings
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions

_SAMPLE = 1 << 18
_DELIMITERS = ",\t;|"
_MAX_FIELD_CHARS = 32 << 20
"""Field size limit: an unclosed quote is detected at the latest after this many characters."""
_Row = list[str] | csv.Error


def read(
    path: str, file: BinaryIO, options: ReadOptions, skip: int = 0
) -> Iterator[ExtractedText | ReadIssue]:
    """A document for each row after the first `skip`; rows whose width differs from the header's are rejected."""
    sample = file.read(_SAMPLE)
    try:
        decoded = decode(_whole_lines(sample))
    except Undecodable as error:
        yield ReadIssue("rejected", error.reason, value=error.value, threshold=error.threshold)
        return
    if decoded.reason.startswith("decoded_as"):
        yield ReadIssue("changed", decoded.reason)
    # Invalid UTF-8 bytes become lone surrogates here and are reported with their row.
    encoding = "utf-8-sig" if decoded.encoding == "utf-8" else decoded.encoding
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    text = io.TextIOWrapper(io.BufferedReader(_PeekedFile(sample, file)), encoding, errors, newline="")
    delimiter = _delimiter(decoded.text, options.fields["text"])
    rows = _rows(text, delimiter, options.max_file_bytes)
    names = next(rows, [])
    if isinstance(names, csv.Error):
        yield ReadIssue("rejected", "bad_row", detail=str(names)[:300])
        return
    if options.fields["text"] not in names and not layout_columns(names, options):
        yield ReadIssue("rejected", "no_text_field", detail=missing_text(names, options)[:300])
        return
    number = 0
    for number, row in enumerate(rows, 1):
        if number > skip:
            yield from _record(row, names, str(number), options)
    if not number:
        yield ReadIssue("rejected", "empty")


def _record(
    row: _Row, names: list[str], position: str, options: ReadOptions
) -> Iterator[ExtractedText | ReadIssue]:
    if isinstance(row, csv.Error):
        yield ReadIssue("rejected", "bad_row", position, detail=str(row)[:300])
    elif len(row) != len(names):
        yield ReadIssue(
            "rejected", "bad_row", position, len(row), len(names), "number of fields, and of columns"
        )
    else:
        record = dict(zip(names, row, strict=True))
        metadata = {name: record.get(key, "") for name, key in options.fields.items() if name != "text"}
        text = row_text(record, options)
        if text is None:
            yield ReadIssue("rejected", "no_text_field", position, detail=missing_text(names, options)[:300])
            return
        raw = text if text.isascii() else text.encode("utf-8", "surrogateescape")
        yield from document(raw, position, options, **to_strings(metadata))


def _rows(text: io.TextIOWrapper, delimiter: str, max_chars: int) -> Iterator[_Row]:
    """Non-empty rows. A row that can't be parsed is its error; parsing continues at the next line."""
    csv.field_size_limit(min(max_chars, _MAX_FIELD_CHARS))
    # Strict: otherwise an unclosed quote joins all the following rows into one document.
    reader = csv.reader(_bounded(text, min(max_chars, _MAX_FIELD_CHARS)), delimiter=delimiter, strict=True)
    while True:
        try:
            row: _Row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row = error
        except UnicodeError as error:  # the decoder can't resynchronise
            yield csv.Error(str(error))
            return
        if row:
            yield row


def _bounded(text: io.TextIOWrapper, max_chars: int) -> Iterator[str]:
    """Lines with their ends, cut at `max_chars`: the parts of a longer line are rows of the wrong width."""
    return iter(lambda: text.readline(max_chars), "")


def _delimiter(sample: str, text_column: str) -> str:
    """The delimiter for which the header has the text column, else the one that gives the most columns."""
    header = io.StringIO(sample, newline="")

    def names(delimiter: str) -> list[str]:
        header.seek(0)
        try:
            return next(csv.reader(header, delimiter=delimiter), [])
        except csv.Error:
            return []

    return max(_DELIMITERS, key=lambda delimiter: (text_column in names(delimiter), len(names(delimiter))))


def _whole_lines(sample: bytes) -> bytes:
    """The sample up to its last line end, so that no multi-byte character is cut."""
    return sample[: sample.rfind(b"\n") + 1 or len(sample)] if len(sample) == _SAMPLE else sample


class _PeekedFile(io.RawIOBase):
    """Bytes already read from a file, then the rest of the file; closing it keeps the file open."""

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self.begun, self.file = head, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.begun[: len(buffer)] or self.file.read(len(buffer))
        self.begun = self.begun[len(data) :]
        buffer[: len(data)] = data
        return len(data)
