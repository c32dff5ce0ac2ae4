"""Fault-tolerant parser of WARC and ARC records.

in:  the bytes of a WARC or ARC file
out: numbered Records in file order; a damaged one has a reason instead of a body

FastWARC stops at the first error, returns a truncated record as if it were complete, and doesn't read ARC. Here every
byte belongs to a record or to a reported gap. A record with a wrong length ends where the next one starts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from groundup.text.ingest.formats._gzip_resync import GzipStream
from groundup.text.ingest.formats._headers import ARC, WARC, Dialect
from groundup.text.ingest.types import ReadOptions

MAX_HEADER_BYTES = 1 << 16
EXPANSION_FLOOR = 1 << 20
"""Decompressed bytes that are always allowed, whatever the ratio."""
_STEP = 1 << 20
_START_BYTES = 1 << 12
"""Bytes that are enough to recognise the start of a record."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record. `body` is empty if `reason` is set; `number` counts from 1."""

    number: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    reason: str = ""
    value: float | None = None
    threshold: float | None = None
    detail: str = ""


def records(file: BinaryIO, options: ReadOptions) -> Iterator[Record]:
    """All records and the gaps between them. A record's body has at most `options.max_file_bytes`."""
    stream = GzipStream(file)
    dialect = ARC if ARC.start.match(stream.peek(_START_BYTES)) else WARC
    number = 0
    while True:
        truncated = False
        while stream.fill(_START_BYTES):
            record = _record(stream, dialect, options, number + 1)
            if record:
                number += 1
                truncated = record.reason == "truncated_record"
                yield record
        if stream.damage and not truncated:
            number += 1
            yield Record(number, reason="damaged_gzip", detail=stream.damage)
        if not stream.next_run(dialect.start.match):
            return


def _record(stream: GzipStream, dialect: Dialect, options: ReadOptions, number: int) -> Record | None:
    """The next record; None for empty lines between records."""
    begins = stream.peek(_START_BYTES)
    blank = len(begins) - len(begins.lstrip(b"\r\n"))
    if blank:
        stream.take(blank)
        return None
    if not dialect.start.match(begins):
        skipped = _skip_to_start(stream, dialect)
        return Record(number, reason="not_a_record", value=skipped, detail=_first_line(begins))
    packed_before, unpacked_before = stream.packed, stream.unpacked - stream.fill(0)
    end = dialect.end.search(begins) or dialect.end.search(stream.peek(MAX_HEADER_BYTES))
    header = stream.take(end.end() if end else 1)
    headers = dialect.parse(header) if end else None
    length = headers.get("content-length", "") if headers else ""
    if headers is None or not length.isascii() or not length.isdigit() or len(length) > 18:
        skipped = _skip_to_start(stream, dialect) + len(header)
        return Record(number, headers or {}, reason="bad_record", value=skipped, detail=_first_line(begins))
    size = int(length)
    if size > options.max_file_bytes:
        _skip_to_start(stream, dialect, size)
        return Record(number, headers, reason="too_large", value=size, threshold=options.max_file_bytes)
    body = stream.take(size)
    limit = max(EXPANSION_FLOOR, int((stream.packed - packed_before) * options.max_expansion))
    if stream.unpacked - unpacked_before > limit:
        return Record(
            number,
            headers,
            reason="expands_too_much",
            value=stream.unpacked - unpacked_before,
            threshold=limit,
        )
    return _check_length(Record(number, headers, body), size, stream, dialect)


def _check_length(record: Record, size: int, stream: GzipStream, dialect: Dialect) -> Record:
    """The record, with a reason if neither the next record nor the end of the file follows its declared length."""
    body = record.body
    after = stream.peek(_START_BYTES).lstrip(b"\r\n")
    if len(body) == size and (not after or dialect.start.match(after)):
        return record
    start = _find_start(body, dialect)
    if start is None and len(body) == size:
        return (
            record  # the declared length may be too short: the remaining bytes are reported as not_a_record
        )
    if start is not None:
        stream.put_back(body[start:])
    return Record(
        record.number,
        record.headers,
        reason="truncated_record" if start is None else "bad_record",
        value=len(body) if start is None else start,
        threshold=size,
        detail=stream.damage or "shorter than its declared length",
    )


def _skip_to_start(stream: GzipStream, dialect: Dialect, min_bytes: int = 0) -> int:
    """Skip to the start of the next record, or past `min_bytes` if not 0. Returns the number of skipped bytes."""
    skipped, overlap = 0, b"" if min_bytes else b"\n"
    while True:
        data = overlap + stream.take(min(_STEP, min_bytes - skipped) if min_bytes else _STEP)
        if len(data) == len(overlap):
            return skipped
        start = _find_start(data, dialect)
        if start is not None:
            stream.put_back(data[start:])
            return skipped + start - len(overlap)
        skipped += len(data) - len(overlap)
        overlap = data[-_START_BYTES:]
        if min_bytes and skipped >= min_bytes:
            return skipped


def _find_start(data: bytes, dialect: Dialect) -> int | None:
    match = dialect.next.search(data)
    return match.start() + 1 if match else None


def _first_line(data: bytes) -> str:
    """First line of the data, for messages."""
    return data.split(b"\n", 1)[0][:100].decode("ascii", "replace").strip()
