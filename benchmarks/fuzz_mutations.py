"""Mutations of files for `fuzz_readers.py`, and bombs: small or regular files that are costly to read.

in:  bytes, a random generator
out: other bytes
"""

import gzip
import io
import json
import random
import re
import zipfile
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from fuzz_seeds import COMPRESSORS, DECOMPRESSORS, INTERESTING, Seed, Seeds

MAX_BYTES = 4 << 20
"""Size that mutations don't exceed."""
_NUMBER = re.compile(rb"\d+")
_BRACKETS = (
    b"[",
    b"{",
    b"(",
    b"<div>",
    b"<b>",
    b'{"a":',
    b'[{"text":',
    b"<table><tr><td>",
    b"<<",
    b"> ",
    b"\\",
    b'"',
    b"&amp;",
    b"--q\n",
    b"\n",
)


def flip(data: bytearray, draw: random.Random, other: bytes) -> None:
    for _ in range(draw.choice((1, 1, 3, 30, 300))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def damage_head(data: bytearray, draw: random.Random, other: bytes) -> None:
    data[draw.randrange(min(len(data), 32))] = draw.randrange(256)


def truncate(data: bytearray, draw: random.Random, other: bytes) -> None:
    del data[draw.randrange(len(data)) :]


def behead(data: bytearray, draw: random.Random, other: bytes) -> None:
    del data[: draw.randrange(min(len(data), 64)) + 1]


def cut_out(data: bytearray, draw: random.Random, other: bytes) -> None:
    at = draw.randrange(len(data))
    del data[at : at + draw.randint(1, 1000)]


def duplicate(data: bytearray, draw: random.Random, other: bytes) -> None:
    at = draw.randrange(len(data))
    span = bytes(data[at : at + draw.randint(1, 4000)])
    data[at:at] = span * draw.choice((1, 2, 20, 200))


def splice(data: bytearray, draw: random.Random, other: bytes) -> None:
    at, there = draw.randrange(len(data)), draw.randrange(len(other) or 1)
    data[at:at] = other[there : there + draw.choice((10, 1000, 100_000))]


def append(data: bytearray, draw: random.Random, other: bytes) -> None:
    data += draw.choice((b"\n", b"\0" * 512, b"garbage", b"\xff" * 64, other))


def insert(data: bytearray, draw: random.Random, other: bytes) -> None:
    at = draw.randrange(len(data) + 1)
    data[at:at] = draw.choice(INTERESTING) * draw.choice((1, 1, 3, 1000))


def huge_number(data: bytearray, draw: random.Random, other: bytes) -> None:
    places = [match.span() for match in _NUMBER.finditer(data[: 1 << 20])]
    if places:
        start, end = draw.choice(places)
        data[start:end] = draw.choice(
            (b"0", b"-1", b"9" * 9, b"9" * 18, b"9" * 5000, b"4294967295", b"2147483648", b"1e308")
        )


def huge_length(data: bytearray, draw: random.Random, other: bytes) -> None:
    at = draw.randrange(len(data))
    data[at : at + 4] = draw.choice(
        (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\0\0", b"\xff\xff\0\0")
    )


def nest(data: bytearray, draw: random.Random, other: bytes) -> None:
    at = draw.randrange(len(data) + 1)
    data[at:at] = draw.choice(_BRACKETS) * draw.choice((100, 2000, 50_000))


MUTATIONS: tuple[Callable[[bytearray, random.Random, bytes], None], ...] = (
    flip, flip, damage_head, truncate, truncate, behead, cut_out, duplicate, splice, append, insert, insert,
    huge_number, huge_length, nest,
)  # fmt: skip
HARMLESS = {append, insert, flip, damage_head, truncate, cut_out, huge_length, behead}
"""Mutations after which a document of a file with checksums is either read or reported."""


def mutated(seed: Seed, draw: random.Random, seeds: Seeds) -> Seed:
    """The seed after some mutations, perhaps compressed or misnamed afterwards."""
    data, kept = bytearray(seed.data), seed.documents
    for _ in range(draw.choice((0, 1, 1, 1, 2, 4))):
        mutation = draw.choice(MUTATIONS)
        if data:
            mutation(data, draw, seeds.any().data if mutation in (splice, append) else b"")
        kept = kept if mutation in HARMLESS else 0
    data = data[:MAX_BYTES]
    if bytes(data) != seed.data and (
        seed.suffix.endswith(("docx", "epub")) or is_intact(seed.suffix, bytes(data))
    ):
        kept = 0  # a zip reader takes what its directory names; a whole member that is gone leaves no trace
    suffix = seed.suffix
    if draw.random() < 0.1:
        name, pack = draw.choice(list(COMPRESSORS.items()))
        data, suffix, kept = bytearray(pack(bytes(data))), f"{suffix}.{name}", 0
    if draw.random() < 0.08:
        suffix, kept = seeds.any().suffix, 0
    return Seed(suffix, bytes(data), kept)


def is_intact(suffix: str, data: bytes) -> bool:
    """Whether a compressed file is nothing but whole members."""
    new = DECOMPRESSORS.get(suffix.rpartition(".")[2])
    try:
        while new and data:
            member = new()
            member.decompress(data)
            if not member.eof:
                return False
            data = member.unused_data
    except Exception:  # each library has errors of its own
        return False
    return new is not None


def _gzip_bomb(draw: random.Random) -> bytes:
    return gzip.compress(b"\0" * draw.choice((10 << 20, 300 << 20)), 1)


def _zip_bomb(draw: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name in ("[Content_Types].xml", "word/document.xml", "word/styles.xml"):
            made.writestr(name, b"<a>" * (10 << 20))
    return out.getvalue()


def _parquet_bomb(draw: random.Random) -> bytes:
    out = io.BytesIO()
    pq.write_table(
        pa.table({"text": ["a " * 4000] * 60_000}),
        out,
        use_dictionary=draw.random() < 0.5,
        compression="zstd",
    )
    return out.getvalue()


def _many(piece: bytes, most: int = 30 << 20) -> Callable[[random.Random], bytes]:
    return lambda draw: piece * (draw.randint(1 << 20, most) // len(piece))


def _around(
    head: bytes, piece: bytes, tail: bytes = b"", most: int = 30 << 20
) -> Callable[[random.Random], bytes]:
    return lambda draw: head + piece * (draw.randint(1 << 20, most) // len(piece)) + tail


_MAIL = b"Received: x\nFrom: a@b\nDate: today\n"
BOMBS: tuple[tuple[str, Callable[[random.Random], bytes]], ...] = (
    ("jsonl.gz", _gzip_bomb), ("txt.gz", _gzip_bomb), ("warc.gz", _gzip_bomb), ("pdf.gz", _gzip_bomb),
    ("docx", _zip_bomb),
    ("parquet", _parquet_bomb),
    ("zst", lambda draw: zstandard.ZstdCompressor(level=3).compress(b"word " * (60 << 20))),
    ("html", _around(b"<html><body>", b"<b>x</b>")), ("html", _around(b"<html><body>", b"<p class=a id=b>word ")),
    ("html", _around(b"<html>", b"<table><tr><td>")), ("html", _around(b"<html><body><select>", b"<option>thing")),
    ("html", _around(b"<html><body><p ", b"a=b ")), ("html", _around(b"<html><body>", b"<!--")),
    ("html", _around(b"<html>", b"&amp;&#x41;")),
    ("html", _around(b"<html><body>", b"<svg><math><p>", most=8 << 20)),
    ("html", _around(b"<html><body>", b"<a href=x><p>", most=8 << 20)),
    ("jsonl", _many(b"[")), ("jsonl", _around(b"[", b"[],", b"[]]")), ("jsonl", _many(b'{"text": ""}\n', 6 << 20)),
    ("jsonl", _around(b'{"text": "', b"\\u0041", b'"}')), ("jsonl", _around(b'{"text": 1', b"0", b"}", 4 << 20)),
    ("json", _around(b'[{"a":', b"[")), ("json", _around(b'[{"a":[', b'"",', b'""]}]')),
    ("json", _around(b"[", b'{"text":"x y"},', b"]", 3 << 20)),
    ("csv", _around(b"text,n\n", b",")),
    ("csv", _around(b'text,n\n"', b'""')), ("csv", _around(b"text,n\n", b"a,b\n", most=3 << 20)),
    ("csv", _around(b"text\n", b'"')), ("tsv", _around(b"text" + b"\tx" * 100_000 + b"\n", b"a\t", most=8 << 20)),
    ("eml", _around(_MAIL + b"Subject: ", b"=?utf-8?q?w?=\n ", b"\n\nHi")),
    ("eml", _around(_MAIL + b"To: ", b"a <b@c>, ", b"\n\nHi", 6 << 20)),
    ("eml", _around(_MAIL + b"Content-Type: multipart/mixed; boundary=q\n\n", b"--q\n\nx\n", most=6 << 20)),
    ("eml", _around(_MAIL, b"Content-Type: message/rfc822\n\n", most=2 << 20)),
    ("eml", _around(_MAIL, b"X: y\n", b"\nHi", 8 << 20)),
    ("mbox", _many(b"From a@b Thu Jan  1 00:00:00 1970\nSubject: x\n\ny\n\n", 1 << 21)),
    ("warc", _many(b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 0\r\n\r\n\r\n\r\n", 1 << 21)),
    ("warc", _around(b"WARC/1.0\r\n", b"a: b\r\n", most=8 << 20)), ("warc", _many(b"WARC/1.0\r\n", 8 << 20)),
    ("jsonl.gz", _many(b"\x1f\x8b\x08", 8 << 20)), ("txt.bz2", _many(b"BZh91AY&SY", 2 << 20)),
    ("txt.xz", _many(b"\xfd7zXZ\0", 2 << 20)),
    ("txt.zst", _many(b"\x28\xb5\x2f\xfd", 4 << 20)),
    ("jsonl.gz", lambda draw: gzip.compress(b"", mtime=0) * 100_000),
    ("txt", _many(b"\n")), ("txt", _many(b"<|endoftext|>\n", 8 << 20)), ("txt", _many(b"x")),
    ("txt", _many(b"\r", 4 << 20)),
    ("txt", _many("船".encode("shift_jis"), 6 << 20)), ("txt", _many(b"\xc3")), ("txt", _many("a\u0301".encode())),
    ("txt", _around(b"\xff\xfe", b"a\0\n\0")),
    ("pdf", _around(b"%PDF-1.4\n", b"1 0 obj\n<<>>\nendobj\n", most=4 << 20)),
    ("pdf", _around(b"%PDF-1.4\n1 0 obj\n", b"[", most=4 << 20)),
    ("md", _many(b"a" * 900_000 + b"\n", 8 << 20)),
    ("jsonl", lambda draw: json.dumps({"text": "a b " * (4 << 20)}).encode() + b"\n"),
)  # fmt: skip


def bomb(draw: random.Random) -> Seed:
    """A costly file."""
    suffix, make = draw.choice(BOMBS)
    return Seed(suffix, make(draw))
