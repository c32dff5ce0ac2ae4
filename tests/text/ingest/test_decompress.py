"""Compressed files with damage: all before it and all from the next intact member on is read, and gaps are named."""

import bz2
import gzip
import io
import json
import lzma
import random
import re
import time
from collections.abc import Callable

import pyarrow as pa
import pytest
import zstandard

from format_helpers import OPTIONS, PROSE, read, reasons, texts
from groundup.text.ingest.formats._http import response
from groundup.text.ingest.formats.decompress import MAX_GAPS, DecompressedFile
from groundup.text.ingest.types import ReadIssue

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
SUFFIXES = {"gzip": ".gz", "zstd": ".zst", "bzip2": ".bz2", "xz": ".xz"}
NUMBER = re.compile(rf"{re.escape(PROSE)}(\d+) [\d ]+$")
NO_MEMBERS = [
    b"\n",
    b"\n" * 30,
    b"PAD" * 200,
    b"\x00\x01" * 100,
    b"\x1f\x8b",
    b"BZh9",
    b"\x28\xb5\x2f\xfdjunk",
]


def rows(first: int, count: int, words: int = 1) -> bytes:
    """JSON lines whose texts say their numbers."""
    draw = random.Random(first)
    noise = [" ".join(f"{draw.randrange(10**9)}" for _ in range(words)) for _ in range(count)]
    lines = [json.dumps({"text": f"{PROSE}{first + n} {noise[n]}"}) for n in range(count)]
    return "\n".join(lines).encode() + b"\n"


def numbers(data: bytes, kind: str) -> list[int]:
    """Of the rows that were read; a text in which a flipped bit went unnoticed has none."""
    found = [NUMBER.match(text.text) for text in texts(read("a.jsonl" + SUFFIXES[kind], data))]
    return [int(match[1]) for match in found if match]


def issues(data: bytes, kind: str) -> list[ReadIssue]:
    return [item for item in read("a.jsonl" + SUFFIXES[kind], data) if isinstance(item, ReadIssue)]


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("between", NO_MEMBERS)
def test_bytes_between_members_cost_no_document_and_are_named(kind: str, between: bytes) -> None:
    first, second = PACKERS[kind](rows(0, 60)), PACKERS[kind](rows(60, 60))
    data = first + between + second
    assert numbers(data, kind) == [*range(120)]
    (issue,) = issues(data, kind)
    assert (issue.outcome, issue.reason) == ("changed", f"damaged_{kind}")
    assert f"byte {len(first)}" in issue.detail or between.startswith((b"\x28", b"BZh", b"\x00"))
    assert f"reading continues at byte {len(first) + len(between)}" in issue.detail


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("padding", [b"\x00", bytes(512), bytes(70_000)])
def test_nuls_between_and_after_members_are_padding(kind: str, padding: bytes) -> None:
    data = PACKERS[kind](rows(0, 60)) + padding + PACKERS[kind](rows(60, 60)) + padding
    assert numbers(data, kind) == [*range(120)] and not issues(data, kind)


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("after", NO_MEMBERS)
def test_bytes_after_the_last_member_are_named_and_all_documents_kept(kind: str, after: bytes) -> None:
    data = PACKERS[kind](rows(0, 60)) + after
    assert numbers(data, kind) == [*range(60)]
    (issue,) = issues(data, kind)
    assert (issue.outcome, issue.reason) == (
        "changed",
        f"damaged_{kind}",
    ) and "the rest isn't read" in issue.detail


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("byte", range(3))
def test_a_flipped_magic_byte_costs_its_member_alone(kind: str, byte: int) -> None:
    members = [PACKERS[kind](rows(60 * n, 60)) for n in range(3)]
    for broken in range(3):
        flipped = bytearray(members[broken])
        flipped[byte] ^= 0x40
        data = b"".join([*members[:broken], bytes(flipped), *members[broken + 1 :]])
        kept = [n for n in range(180) if n // 60 != broken]
        assert numbers(data, kind) == kept
        assert [issue.reason for issue in issues(data, kind) if "damaged" in issue.reason] == [
            f"damaged_{kind}"
        ]


@pytest.mark.parametrize("kind", PACKERS)
def test_damage_inside_a_member_keeps_what_came_before_and_the_next_member(kind: str) -> None:
    parts = [rows(1000 * n, 1000, words=20) for n in range(3)]
    members = [PACKERS[kind](part) for part in parts]
    draw = random.Random(7)
    for _ in range(10):
        data = bytearray(b"".join(members))
        at = len(members[0]) + draw.randrange(40, len(members[1]) - 40)
        data[at : at + 8] = draw.randbytes(8)
        found = numbers(bytes(data), kind)
        assert found[:1000] == [*range(1000)], "the member before the damage is whole"
        assert found[-1000:] == [*range(2000, 3000)], "so is the member after it"
        assert len(found) <= 3000, "nothing is read twice"
        assert f"damaged_{kind}" in [issue.reason for issue in issues(bytes(data), kind)]


@pytest.mark.parametrize("kind", ["bzip2", "xz", "zstd"])
def test_the_blocks_of_one_member_before_the_damage_are_kept_to_the_last_byte(kind: str) -> None:
    """A decompressor that raises has thrown away what it had decompressed in the same call."""
    content = rows(0, 12_000, words=20)  # some 3 MB: several blocks of each format
    data = bytearray(PACKERS[kind](content))
    at = len(data) * 2 // 3
    data[at : at + 3000] = b"\xff" * 3000
    file = DecompressedFile(io.BytesIO(bytes(data)), kind, 100.0)
    kept = file.read()
    pairs = enumerate(zip(kept, content, strict=False))
    same = next((n for n, (ours, true) in pairs if ours != true), len(kept))
    blocks = {"bzip2": 899_900, "xz": 1, "zstd": 1 << 17}[kind]
    assert same > len(content) * 0.5 and (
        kind == "xz" or same % blocks < 1000 or same % blocks > blocks - 1000
    )
    assert [issue.reason for issue in file.issues] == [f"damaged_{kind}"]


def test_zstd_with_a_skippable_frame_and_frames_of_unknown_size_is_read() -> None:
    stream = zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compressobj()
    unsized = stream.compress(rows(0, 60)) + stream.flush()
    skippable = b"\x53\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"
    empty = zstandard.compress(b"")
    data = skippable + unsized + skippable + empty + zstandard.compress(rows(60, 60), 19)
    assert numbers(data, "zstd") == [*range(120)] and not issues(data, "zstd")
    large = zstandard.compress(bytes(3 << 20))  # blocks of one repeated byte
    assert DecompressedFile(io.BytesIO(large), "zstd", 1e6).read() == bytes(3 << 20)


def test_a_line_cut_by_damage_is_not_joined_to_the_next_member() -> None:
    member = gzip.compress(b'{"text": "first"}\n{"text": "sec')
    lost = b"\x1f\x9b" + gzip.compress(b"x" * 99)[2:]
    items = read("a.jsonl.gz", member + lost + gzip.compress(b'ond"}\n{"text": "third"}\n'))
    assert [text.text for text in texts(items)] == ["first", "third"]
    assert [reason for _, _, reason in reasons(items)] == ["bad_json", "bad_json", "damaged_gzip"]
    whole = read("a.jsonl.gz", member + gzip.compress(b'ond"}\n'))
    assert [text.text for text in texts(whole)] == ["first", "second"], "members may end anywhere"


@pytest.mark.parametrize("kind", PACKERS)
def test_a_plain_text_continues_after_a_gap(kind: str) -> None:
    pack = PACKERS[kind]
    (issue, text) = read(
        "tale.txt" + SUFFIXES[kind], pack(b"The beginning.\n") + b"rubbish" + pack(b"The end.")
    )
    assert isinstance(issue, ReadIssue) and issue.reason == f"damaged_{kind}"
    assert texts([text])[0].text == "The beginning.\nThe end."


@pytest.mark.parametrize("kind", PACKERS)
def test_an_archive_of_web_pages_is_read_past_a_gap(kind: str) -> None:
    def record(number: int) -> bytes:
        body = f"{PROSE * 9}{number}".encode()
        head = f"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}"
        return head.encode() + b"\r\n\r\n" + body + b"\r\n\r\n"

    pack = PACKERS[kind]
    items = read("a.warc" + SUFFIXES[kind], pack(record(1)) + b"?" * 600 + pack(record(2)) + b"\n")
    assert [text.text[-1] for text in texts(items)] == ["1", "2"]
    assert f"damaged_{kind}" in [reason for _, _, reason in reasons(items)]


def test_a_response_with_bytes_after_its_compressed_body_is_kept() -> None:
    page = PROSE.encode() * 20
    bodies = {
        "gzip": gzip.compress(page),
        "zstd": zstandard.compress(page),
        "br": bytes(pa.Codec("brotli").compress(page)),
    }
    for encoding, body in bodies.items():
        data = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\n\r\n".encode() + body + b"\r\nrubbish"
        payload = response(data, OPTIONS)
        assert payload.body == page, encoding
        assert payload.issue and payload.issue.reason.startswith("damaged_")


@pytest.mark.parametrize("kind", PACKERS)
def test_the_search_for_members_is_bounded(kind: str) -> None:
    magic = {
        "gzip": b"\x1f\x8b\x08",
        "zstd": b"\x28\xb5\x2f\xfd",
        "bzip2": b"BZh91AY&SY",
        "xz": b"\xfd7zXZ\x00",
    }[kind]
    start = time.process_time()
    for filler in (b"", b"\x00" * 9, b"\xff" * 50):
        read(
            "a.jsonl" + SUFFIXES[kind],
            PACKERS[kind](rows(0, 3)) + (magic + filler) * (4_000_000 // (3 + len(filler))),
        )
    short = PACKERS[kind](b"x")[:-1] + b"?"
    items = read("a.jsonl" + SUFFIXES[kind], short * 20_000)
    assert time.process_time() - start < 30
    assert len(reasons(items)) <= MAX_GAPS + 20_000


@pytest.mark.parametrize("kind", PACKERS)
def test_whatever_is_flipped_the_file_is_accounted_for(kind: str) -> None:
    draw = random.Random(11)
    whole = b"".join(PACKERS[kind](rows(20 * n, 20)) for n in range(5))
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 1, 3))):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        found = numbers(bytes(data), kind)
        assert len(found) == 100 or issues(bytes(data), kind), "a loss is always named"
        assert len(found) >= 40, "one to three flipped bits cost at most three of five members"
