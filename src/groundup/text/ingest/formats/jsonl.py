"""JSON lines -> a document per line, read as a stream.

in:  lines of JSON objects
out: the text of each, at the position of its line number; lines that can't be used are noted one by one
"""

import codecs
import json
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any, BinaryIO

from groundup.text.ingest.decode import Undecodable, as_utf8, byte_order_mark, decode, without_surrogates
from groundup.text.ingest.formats.plain import document
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions

_CHUNK = 1 << 18


def read(
    path: str, file: BinaryIO, options: ReadOptions, skip: int = 0
) -> Iterator[ExtractedText | ReadIssue]:
    """A document for each line but empty ones; the first `skip` aren't looked at."""
    chunks = iter(partial(file.read, _CHUNK), b"")
    first = next(chunks, b"")
    marked = byte_order_mark(first)
    if marked:
        yield ReadIssue("changed", f"decoded_as_{marked}")
    chunks = chain([first.removeprefix(codecs.BOM_UTF8)], chunks)
    seen = 0
    for number, (line, size) in enumerate(_lines(as_utf8(chunks, marked), options.max_file_bytes), 1):
        if size == len(line) and not line.strip():
            continue
        seen += 1
        if seen <= skip:
            continue
        if size > len(line):
            yield ReadIssue("rejected", "too_large", str(number), size, options.max_file_bytes)
        else:
            yield from _record(line, str(number), options)
    if not seen:
        yield ReadIssue("rejected", "empty")


def _lines(chunks: Iterator[bytes], most: int) -> Iterator[tuple[bytes, int]]:
    """Lines without their ends, and their size; of one of more than `most` bytes only the beginning.

    Ends are line feeds alone: U+2028 and its like may stand unescaped in a JSON string.
    """
    begun, size = bytearray(), 0
    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            size += len(piece)
            if begun:
                begun += piece[: most - len(begun)]
                piece = bytes(begun)
                begun.clear()
            yield piece[:most], size
            size = 0
        size += len(rest)
        begun += rest[: most - len(begun)]
    if size:
        yield bytes(begun), size


def _record(line: bytes, position: str, options: ReadOptions) -> Iterator[ExtractedText | ReadIssue]:
    try:
        text, changed = line.decode(), None
    except UnicodeDecodeError:
        try:
            decoded = decode(line)
        except Undecodable as error:
            yield ReadIssue("rejected", error.reason, position, error.value, error.threshold)
            return
        text, changed = decoded.text, ReadIssue("changed", decoded.reason, position, decoded.value)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        yield ReadIssue("rejected", "bad_json", position, detail=f"line {position}: {error}"[:300])
        return
    value = get_field(record, options.fields["text"])
    if not isinstance(value, str):
        there = f"; there are: {', '.join(record)}" if isinstance(record, dict) else ""
        detail = f"line {position}: no string under {options.fields['text']!r}{there}"
        yield ReadIssue("rejected", "no_text_field", position, detail=without_surrogates(detail)[0][:300])
        return
    about = {name: get_field(record, key) for name, key in options.fields.items() if name != "text"}
    if changed:
        yield changed
    yield from document(value, position, options, **to_strings(about))


def get_field(record: Any, key: str) -> Any:
    """The value under `key`, or under `a.b.c` inside of objects; None if there is none."""
    if isinstance(record, dict) and key in record:
        return record[key]
    for part in key.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def to_strings(about: Mapping[str, Any]) -> dict[str, str]:
    """What a record says of a document, as strings; what is neither a string nor a number counts as nothing."""
    plain = {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for name, value in about.items()
    }
    usual = {name: value for name, value in plain.items() if isinstance(value, str | int | float)}
    return {name: without_surrogates(str(value))[0] for name, value in usual.items()}
