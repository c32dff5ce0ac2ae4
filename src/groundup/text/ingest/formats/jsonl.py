"""JSON lines -> a document per line, read as a stream.

in:  lines of JSON objects
out: the text of each; its position is the line number; unusable lines are reported one by one
"""

from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from groundup.text.ingest.decode import Undecodable, decode, utf8_chunks
from groundup.text.ingest.formats.plain import document
from groundup.text.ingest.formats.rows import (
    MAX_RECORD_BYTES,
    get_field,
    missing_text,
    parse_json,
    row_text,
    to_strings,
)
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions, Row

_CHUNK = 1 << 18


def read(
    path: str, file: BinaryIO, options: ReadOptions, skip: int = 0
) -> Iterator[ExtractedText | ReadIssue]:
    """A document for each line that isn't empty, after the first `skip`."""
    yield from row_documents(rows(path, file, options, skip), options)


def rows(path: str, file: BinaryIO, options: ReadOptions, skip: int = 0) -> Iterator[Row | ReadIssue]:
    """The value of each line that isn't empty, after the first `skip`."""
    encoding, chunks = utf8_chunks(iter(partial(file.read, _CHUNK), b""))
    if encoding:
        yield ReadIssue("changed", f"decoded_as_{encoding}")
    count = 0
    limit = min(options.max_file_bytes, MAX_RECORD_BYTES)
    for number, (line, size) in enumerate(_lines(chunks, limit), 1):
        if size == len(line) and not line.strip():
            continue
        count += 1
        if count <= skip:
            continue
        if size > len(line):
            yield ReadIssue("rejected", "too_large", str(number), size, limit)
        else:
            yield parsed(line, str(number))
    if not count:
        yield ReadIssue("rejected", "empty")


def _lines(chunks: Iterator[bytes], max_bytes: int) -> Iterator[tuple[bytes, int]]:
    """(line without its end, its size); a line of more than `max_bytes` is cut.

    Only line feeds end a line: U+2028 and similar characters may be unescaped in a JSON string.
    """
    start, size = bytearray(), 0
    for chunk in chunks:
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            size += len(piece)
            if start:
                start += piece[: max_bytes - len(start)]
                piece = bytes(start)
                start.clear()
            yield piece[:max_bytes], size
            size = 0
        size += len(rest)
        start += rest[: max_bytes - len(start)]
    if size:
        yield bytes(start), size


def parsed(data: bytes, position: str) -> Row | ReadIssue:
    """The value of one JSON text, or the reason why it has none."""
    try:
        text, issue = data.decode(), None
    except UnicodeDecodeError:
        try:
            decoded = decode(data)
        except Undecodable as error:
            return ReadIssue("rejected", error.reason, position, error.value, error.threshold)
        text, issue = decoded.text, ReadIssue("changed", decoded.reason, position, decoded.value)
    try:
        return Row(parse_json(text), position, issue)
    except ValueError as error:
        return ReadIssue("rejected", "bad_json", position, detail=f"record {position}: {error}"[:300])


def row_documents(
    items: Iterator[Row | ReadIssue], options: ReadOptions
) -> Iterator[ExtractedText | ReadIssue]:
    """The document of each JSON object, or the reason why it has none."""
    for item in items:
        if isinstance(item, ReadIssue):
            yield item
            continue
        row, position = item.value, item.position
        value = row_text(row, options)
        if not isinstance(value, str):
            columns = row if isinstance(row, dict) else ()
            detail = f"record {position}: {missing_text(columns, options)}"
            yield ReadIssue("rejected", "no_text_field", position, detail=detail[:300])
            continue
        metadata = {name: get_field(row, key) for name, key in options.fields.items() if name != "text"}
        if item.issue:
            yield item.issue
        yield from document(value, position, options, **to_strings(metadata))
