"""A web archive as a run of records, whatever is wrong with some of them.

in:  the bytes of a WARC or ARC file
out: Records in their order, numbered; what can't be one has its reason

FastWARC, the library for this, stops at the first error, gives a record that was cut off as if it were whole, and
doesn't know ARC; here every byte belongs to a record or is accounted for. A record whose length is wrong ends where
the next one begins.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from groundup.text.ingest.formats._gzip_resync import GzipStream
from groundup.text.ingest.formats._headers import ARC, WARC, Dialect
from groundup.text.ingest.types import Options

MOST_HEADER_BYTES = 1 << 16
EXPANSION_FLOOR = 1 << 20
"""Bytes below which nothing counts as a bomb, whatever its ratio."""
_STEP = 1 << 20
_START_BYTES = 1 << 12
"""Enough to see whether a record begins here."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record. `body` is empty where `reason` says why it wasn't read; `number` counts from 1."""

    number: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    reason: str = ""
    value: float | None = None
    threshold: float | None = None
    detail: str = ""


def records(file: BinaryIO, options: Options) -> Iterator[Record]:
    """All records, and between them what belongs to none. At most `options.file_bytes` of one are held."""
    ahead = GzipStream(file)
    dialect = ARC if ARC.start.match(ahead.peek(_START_BYTES)) else WARC
    number = 0
    while True:
        cut = False
        while ahead.fill(_START_BYTES):
            record = _record(ahead, dialect, options, number + 1)
            if record:
                number += 1
                cut = record.reason == "truncated_record"
                yield record
        if ahead.damage and not cut:
            number += 1
            yield Record(number, reason="damaged_gzip", detail=ahead.damage)
        if not ahead.next_run(dialect.start.match):
            return


def _record(ahead: GzipStream, dialect: Dialect, options: Options, number: int) -> Record | None:
    """The next record; None for the empty lines between two."""
    begins = ahead.peek(_START_BYTES)
    blank = len(begins) - len(begins.lstrip(b"\r\n"))
    if blank:
        ahead.take(blank)
        return None
    if not dialect.start.match(begins):
        passed = _pass_to_start(ahead, dialect)
        return Record(number, reason="not_a_record", value=passed, detail=_shown(begins))
    used, made = ahead.used, ahead.made - ahead.fill(0)
    end = dialect.end.search(begins) or dialect.end.search(ahead.peek(MOST_HEADER_BYTES))
    header = ahead.take(end.end() if end else 1)
    headers = dialect.parse(header) if end else None
    length = headers.get("content-length", "") if headers else ""
    if headers is None or not length.isascii() or not length.isdigit() or len(length) > 18:
        passed = _pass_to_start(ahead, dialect) + len(header)
        return Record(number, headers or {}, reason="bad_record", value=passed, detail=_shown(begins))
    size = int(length)
    if size > options.file_bytes:
        _pass_to_start(ahead, dialect, size)
        return Record(number, headers, reason="too_large", value=size, threshold=options.file_bytes)
    body = ahead.take(size)
    most = max(EXPANSION_FLOOR, int((ahead.used - used) * options.expansion))
    if ahead.made - made > most:
        return Record(number, headers, reason="expands_too_much", value=ahead.made - made, threshold=most)
    return _with_length_checked(Record(number, headers, body), size, ahead, dialect)


def _with_length_checked(record: Record, size: int, ahead: GzipStream, dialect: Dialect) -> Record:
    """A record is as long as it says if another one follows, or nothing. If not, one may begin within it."""
    body = record.body
    after = ahead.peek(_START_BYTES).lstrip(b"\r\n")
    if len(body) == size and (not after or dialect.start.match(after)):
        return record
    within = _find_start(body, dialect)
    if within is None and len(body) == size:
        return record  # too short, perhaps: what is left over will be said to be no record
    if within is not None:
        ahead.put_back(body[within:])
    return Record(
        record.number,
        record.headers,
        reason="truncated_record" if within is None else "bad_record",
        value=len(body) if within is None else within,
        threshold=size,
        detail=ahead.damage or "shorter than it says",
    )


def _pass_to_start(ahead: GzipStream, dialect: Dialect, least: int = 0) -> int:
    """Drop bytes up to the next record that begins, or (if not 0) `least` of them; how many."""
    passed, kept = 0, b"" if least else b"\n"
    while True:
        data = kept + ahead.take(min(_STEP, least - passed) if least else _STEP)
        if len(data) == len(kept):
            return passed
        within = _find_start(data, dialect)
        if within is not None:
            ahead.put_back(data[within:])
            return passed + within - len(kept)
        passed += len(data) - len(kept)
        kept = data[-_START_BYTES:]
        if least and passed >= least:
            return passed


def _find_start(data: bytes, dialect: Dialect) -> int | None:
    found = dialect.next.search(data)
    return found.start() + 1 if found else None


def _shown(data: bytes) -> str:
    """The first line, for people."""
    return data.split(b"\n", 1)[0][:100].decode("ascii", "replace").strip()
