"""Bytes of files in every format, and what is read from them: for the tests of the formats."""

import io
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from groundup.text.ingest.formats import reader
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions

DATA = Path(__file__).parents[2] / "shared/data"
OPTIONS = ReadOptions(max_file_bytes=1 << 24, max_line_bytes=1 << 20, max_expansion=100)
PROSE = "The keeper lit the lamp, and the ships came home. "

Items = list[ExtractedText | ReadIssue]


def read(path: str, data: bytes, options: ReadOptions = OPTIONS, skip: int = 0) -> Items:
    """What is in a file of this name."""
    return list(reader.read(path, io.BytesIO(data), options, skip))


def read_as(module: Any, data: bytes, options: ReadOptions | None = None, skip: int = 0) -> Items:
    """What one format's module makes of bytes."""
    return list(module.read("file", io.BytesIO(data), options or ReadOptions(), skip))


def text_of(module: Any, data: bytes) -> str:
    """The only text in there."""
    items = read_as(module, data)
    (text,) = texts(items)
    return text.text


def texts(items: Items) -> list[ExtractedText]:
    return [item for item in items if isinstance(item, ExtractedText)]


def reasons(items: Items) -> list[tuple[str, str, str]]:
    """(position, fate, reason) of the notes."""
    return [(item.position, item.outcome, item.reason) for item in items if isinstance(item, ReadIssue)]


def parquet(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, row_group_size=100)
    return out.getvalue()


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, PROSE * 10)
    return out.getvalue()


EMPTY_ZIP = b"PK\x05\x06" + bytes(18)


def rezipped(data: bytes, changes: dict[str, bytes]) -> bytes:
    """A zip with some entries replaced or added."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in dict.fromkeys([*old.namelist(), *changes]):
            new.writestr(name, changes.get(name) or old.read(name))
    return out.getvalue()


LAUGHS = b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">%b]><l xmlns="urn:x">&z9;</l>' % b"".join(
    b'<!ENTITY z%d "%b">' % (n, (b"&z%d;" % (n - 1) if n else b"&a;") * 10) for n in range(10)
)
"""XML that becomes ten billion letters if its entities are expanded."""


def damaged(whole: bytes, times: int = 40) -> Iterator[bytes]:
    """The same bytes with some of them wrong, or the end gone."""
    chance = random.Random(5)
    for _ in range(times):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 10, 100))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            data = data[: chance.randrange(len(data))]
        yield bytes(data)
