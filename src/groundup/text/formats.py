"""The bytes of a file -> the texts in it: plain text, JSON lines, and either of them in gzip.

in:  a name and bytes
out: Text and Note; bad records are noted and skipped, the rest is kept
"""

import contextlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from groundup.text.decode import Undecodable, decode, unix_lines, without_surrogates
from groundup.text.sources import Note, Text

_CONTAINERS = (
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"PK\x03\x04", "zip"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"%PDF-", "pdf"),
    (b"SQLite format 3\x00", "sqlite"),
    (b"\x1f\x8b", "gzip"),
)
_GZIP = b"\x1f\x8b"
_GZIP_BITS = 31
_CHUNK = 1 << 16
_LINE_SUFFIXES = (".jsonl", ".ndjson")
_RATIO_FLOOR = 1 << 20
"""Bytes below which no gzip file counts as a bomb, whatever its ratio."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may hold. `expansion` is how many times its size a gzip file may unpack to."""

    file_bytes: int
    line_bytes: int
    expansion: float


def texts(path: str, data: bytes, text_field: str, limits: Limits) -> Iterator[Text | Note]:
    """The texts in one file; `path` is used for its suffix only."""
    name = path.lower()
    if data.startswith(_GZIP):
        name = name.removesuffix(".gz")
        unpacked = _gunzip(data, limits)
        yield from unpacked.notes
        if unpacked.data is None:
            return
        data = unpacked.data
    if not data:
        yield Note("aside", "empty")
        return
    container = next((kind for magic, kind in _CONTAINERS if data.startswith(magic)), None)
    if container is not None:
        yield Note("aside", "unknown_format", detail=container)
    elif name.endswith(_LINE_SUFFIXES):
        yield from _json_lines(data, text_field, limits)
    else:
        yield from _plain(data, limits)


@dataclass(frozen=True, slots=True)
class _Unpacked:
    data: bytes | None
    notes: tuple[Note, ...] = ()


def _gunzip(data: bytes, limits: Limits) -> _Unpacked:
    """Unpack all members, within the limits; of a damaged file what comes before the damage."""
    most = max(_RATIO_FLOOR, int(len(data) * limits.expansion))
    limit, reason = min((most, "expands_too_much"), (limits.file_bytes, "too_large"))
    out, member, at = bytearray(), zlib.decompressobj(_GZIP_BITS), 0
    while at < len(data):
        chunk, before = data[at : at + _CHUNK], member.copy()
        try:
            out += member.decompress(chunk, limit + 1 - len(out))
        except zlib.error as error:
            return _damaged(out + _up_to_the_damage(before, chunk), str(error))
        if len(out) > limit:
            return _Unpacked(None, (Note("aside", reason, value=len(out), threshold=limit, detail="gzip"),))
        at += len(chunk) - len(member.unused_data)
        if member.eof:
            if not data.startswith(_GZIP, at):  # padding after the last member is common and harmless
                return _Unpacked(bytes(out))
            member = zlib.decompressobj(_GZIP_BITS)
    return _damaged(out, "the file ends early")


def _up_to_the_damage(member: Any, chunk: bytes) -> bytes:
    """zlib gives nothing of a chunk with an error in it, so the good part is unpacked byte by byte."""
    out = bytearray()
    with contextlib.suppress(zlib.error):
        for at in range(len(chunk)):
            out += member.decompress(chunk[at : at + 1])
    return bytes(out)


def _damaged(out: bytearray, detail: str) -> _Unpacked:
    if not out:
        return _Unpacked(None, (Note("aside", "damaged_gzip", detail=detail),))
    note = Note("changed", "damaged_gzip", value=len(out), detail=f"{detail}; kept what came before")
    return _Unpacked(bytes(out), (note,))


def _plain(data: bytes, limits: Limits) -> Iterator[Text | Note]:
    try:
        decoded = decode(data)
    except Undecodable as error:
        yield Note("aside", error.reason, value=error.value, threshold=error.threshold)
        return
    refused = _refused(decoded.text, "", limits)
    if refused:
        yield refused
        return
    if decoded.reason:
        yield Note("changed", decoded.reason, value=decoded.value)
    yield Text(decoded.text)


def _json_lines(data: bytes, text_field: str, limits: Limits) -> Iterator[Text | Note]:
    try:
        decoded = decode(data)
    except Undecodable as error:
        yield Note("aside", error.reason, value=error.value, threshold=error.threshold)
        return
    if decoded.reason:
        yield Note("changed", decoded.reason, value=decoded.value)
    # Not splitlines(): U+2028 and its like may stand unescaped in a JSON string.
    for number, line in enumerate(decoded.text.split("\n"), 1):
        if line.strip():
            yield from _json_record(line, str(number), text_field, limits)


def _json_record(line: str, position: str, text_field: str, limits: Limits) -> Iterator[Text | Note]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        yield Note("aside", "bad_json", position, detail=f"line {position}: {error}"[:300])
        return
    text = record.get(text_field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        yield Note(
            "aside", "no_text_field", position, detail=f"line {position}: no string under {text_field!r}"
        )
        return
    text, replaced = without_surrogates(unix_lines(text))
    refused = _refused(text, position, limits)
    if refused:
        yield refused
        return
    if replaced:
        yield Note("changed", "lone_surrogates_replaced", position, value=replaced)
    yield Text(text, position)


def _refused(text: str, position: str, limits: Limits) -> Note | None:
    """Why a text is no document: nothing in it, or a line longer than any person writes."""
    if not text.strip():
        return Note("aside", "empty", position)
    if len(text.encode()) <= limits.line_bytes:
        return None
    longest = max(len(line.encode()) for line in text.split("\n"))
    if longest > limits.line_bytes:
        return Note("aside", "line_too_long", position, value=longest, threshold=limits.line_bytes)
    return None
