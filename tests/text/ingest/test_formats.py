"""What a file is, and what is in it: whole, packed, damaged and hostile."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from format_helpers import DATA, OPTIONS, PROSE, parquet, read, reasons, texts, zipped
from groundup.text.ingest.formats import detect, plain, reader
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions

TALE = "".join(f"Line {n} of a tale that goes on.\n" for n in range(20_000))
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
SUFFIXES = {"gzip": ".gz", "zstd": ".zst", "bzip2": ".bz2", "xz": ".xz"}


# What a file is


@pytest.mark.parametrize(
    ("path", "data", "said", "wrong"),
    [
        ("a.txt", b"%PDF-1.7\n", "pdf", True),
        ("a", b"%PDF-1.7\n", "pdf", False),
        ("a.pdf", b"\n\n%PDF-1.7\n", "pdf", False),
        ("a.py", b"MAGIC = '%PDF-'", "plain", False),
        ("a.pdf", b"<!DOCTYPE html><title>404</title>", "html", True),
        ("a.pdf", b"Not found.", "plain", True),
        ("a.parquet", b"Not found.", "plain", True),
        ("a.aspx", b"\xef\xbb\xbf\n<!-- made by -->\n<HTML lang=en>", "html", False),
        ("a", b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD">', "html", False),
        ("a.md", b"<html> is how a page begins", "plain", False),
        ("a.html", b"no markup", "html", False),
        ("A.HTM", b"no markup", "html", False),
        ("a.csv", b"PAR1\x00", "parquet", True),
        ("a", b"WARC/1.0\r\nWARC-Type: response", "warc", False),
        ("a", b"filedesc://a.arc 0.0.0.0 2008", "warc", False),
        ("a.md", b"WARC/1.0 is a format", "plain", False),
        ("a.docx", zipped("[Content_Types].xml", "word/document.xml"), "docx", False),
        ("a.zip", zipped("[Content_Types].xml", "word/document.xml"), "docx", False),
        ("a.docx", b"PK\x03\x04 the rest is lost", "docx", False),
        ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 encrypted", "docx", False),
        ("a", b"PK\x03\x04" + b"\x00" * 26 + b"mimetypeapplication/epub+zip", "epub", False),
        ("a.txt", b"From a@b.c Thu Jan  1 00:00:00 1970\nSubject: x\n\nHello", "mail", True),
        ("a", b"Received: from x\n\tby y\nDate: today\n\nHello", "mail", False),
        ("a.txt", b"From here to there it took until 1970.\nSo: there.", "plain", False),
        ("c4.json", b'{"text": "one"}\n{"text": "two"}', "jsonl", False),
        ("package.json", b'{\n "text": "one"}', "plain", False),
        ("a.tsv", b"text\tn\n", "csv", False),
        ("a.log", b"BZh is no archive", "plain", False),
    ],
)
def test_the_format_is_told_by_bytes_then_by_name(path: str, data: bytes, said: str, wrong: bool) -> None:
    found = detect.detect_format(path, data, data, "", OPTIONS)
    assert found.format and found.format.name == said
    assert [note.reason for note in found.issues] == ["wrong_extension"] * wrong


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (zipped("a.txt"), "zip"),
        (zipped("xl/workbook.xml"), "xlsx"),
        (b"ARROW1\x00\x00", "arrow"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"SQLite format 3\x00", "sqlite"),
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\x00" * 257 + b"ustar", "tar"),
    ],
)
def test_what_nothing_reads_goes_aside_by_its_kind(data: bytes, kind: str) -> None:
    for name in ("a.txt", "a", "a.jsonl"):
        assert read(name, data) == [ReadIssue("rejected", "unknown_format", detail=kind)]


def test_a_wrong_extension_is_noted_and_the_text_is_read() -> None:
    note, text = read("novel.txt.gz", b"Not packed at all.")
    assert isinstance(note, ReadIssue) and (note.outcome, note.reason) == ("changed", "wrong_extension")
    assert text == ExtractedText("Not packed at all.")
    assert reasons(read("novel.txt", gzip.compress(b"But this is."))) == [("", "changed", "wrong_extension")]
    assert read("novel", gzip.compress(b"Nobody said.")) == [ExtractedText("Nobody said.")]


# Packed files


@pytest.mark.parametrize("kind", PACKERS)
def test_packed_texts_of_several_members_with_padding_are_whole(kind: str) -> None:
    pack = PACKERS[kind]
    padding = b"" if kind == "zstd" else b"\x00" * 512
    data = pack(TALE.encode()) + pack(b"The end.") + padding
    assert read("tale.txt" + SUFFIXES[kind], data) == [ExtractedText(TALE + "The end.")]


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_of_a_truncated_archive_what_came_before_is_kept(kind: str, keep: float) -> None:
    tale = "".join(f"{n * 7919 % 100_003} is line {n} of a tale that goes on.\n" for n in range(30_000))
    data = PACKERS[kind](tale.encode())
    items = read("tale.txt" + SUFFIXES[kind], data[: int(len(data) * keep)])
    assert reasons(items)[0] == ("", "changed" if len(items) == 2 else "rejected", f"damaged_{kind}")
    if kind != "bzip2":  # whose blocks are large
        (text,) = texts(items)
        assert tale.startswith(text.text) and len(text.text) > len(tale) * (keep - 0.25)


@pytest.mark.parametrize("kind", PACKERS)
def test_json_lines_before_the_damage_are_kept_and_the_file_is_noted(kind: str) -> None:
    lines = [json.dumps({"text": f"{PROSE}{n * 7919 % 10_007}"}) for n in range(20_000)]
    data = PACKERS[kind]("\n".join(lines).encode())
    items = read("a.jsonl" + SUFFIXES[kind], data[: len(data) // 2 + len(data) // 4])
    kept = texts(items)
    assert len(kept) > 5_000 and kept[-1].text == PROSE + str((len(kept) - 1) * 7919 % 10_007)
    assert reasons(items)[-1] == ("", "changed", f"damaged_{kind}")
    assert [reason for _, _, reason in reasons(items)[:-1]] in ([], ["bad_json"])


def test_a_wrong_checksum_keeps_the_text_and_says_so() -> None:
    data = bytearray(gzip.compress(TALE.encode()))
    data[-6] ^= 1
    note, text = read("tale.txt.gz", bytes(data))
    assert isinstance(note, ReadIssue) and note.reason == "damaged_gzip" and text == ExtractedText(TALE)


def test_a_gzip_of_nothing_readable_goes_aside() -> None:
    assert reasons(read("x.gz", b"\x1f\x8b\x08\x00garbage")) == [("", "rejected", "damaged_gzip")]
    for pack in PACKERS.values():
        assert reasons(read("x.gz", pack(b""))) == [("", "rejected", "empty")]
    (note,) = read("x.gz", gzip.compress(gzip.compress(b"twice")))
    assert isinstance(note, ReadIssue) and (note.reason, note.detail) == ("unknown_format", "gzip")
    assert read("", b"") == [ReadIssue("rejected", "empty")]


@pytest.mark.parametrize("kind", PACKERS)
def test_a_bomb_is_stopped_by_its_ratio_in_little_memory(kind: str) -> None:
    zeros, field = PACKERS[kind](bytes(24 << 20)), PACKERS[kind](b'text,n\n"' + b"a" * (24 << 20))
    tracemalloc.start()
    try:
        for name, bomb in (("bomb", zeros), ("bomb.txt", zeros), ("bomb.jsonl", zeros), ("bomb.csv", field)):
            items = read(name, bomb, ReadOptions(max_file_bytes=1 << 22, max_expansion=100))
            limit = max(1 << 20, 100 * len(bomb))
            said = "expands_too_much" if limit < 1 << 22 or "l" in name or "csv" in name else "too_large"
            assert said in [reason for _, _, reason in reasons(items)] and not texts(items)
            note = next(item for item in items if isinstance(item, ReadIssue) and item.reason == said)
            assert note.outcome == "rejected" and (note.value or 0) <= max(limit, 1 << 22) + 1
        assert tracemalloc.get_traced_memory()[1] < 48 << 20
    finally:
        tracemalloc.stop()


def test_a_giant_is_stopped_by_its_size_packed_or_not() -> None:
    small = ReadOptions(max_file_bytes=1 << 10)
    for name, data in (("big.html.gz", gzip.compress(TALE.encode())), ("big.html", TALE.encode())):
        (note,) = read(name, data, small)
        assert isinstance(note, ReadIssue) and (note.reason, note.threshold) == ("too_large", 1 << 10)
    lines = b"\n".join([b'{"text": "short"}', json.dumps({"text": TALE}).encode(), b'{"text": "again"}'])
    items = read("big.jsonl", lines * 1, small)
    assert [text.text for text in texts(items)] == ["short", "again"]
    assert reasons(items) == [("2", "rejected", "too_large")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_large_text_is_read_in_pieces_cut_between_paragraphs(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "PIECE_BYTES", 4096)
    tale = "".join(f"Übung {n}.\n" + "\n" * (n % 3 == 0) for n in range(3000))
    for name, data in (
        ("big.txt", tale.encode(encoding)),
        ("big.txt.gz", gzip.compress(tale.encode(encoding))),
    ):
        items = read(name, data)
        assert "".join(text.text for text in texts(items)) == tale
        assert [text.position for text in texts(items)][:2] == ["1", "2"]
        assert all(text.text.endswith("\n\n") for text in texts(items)[:-1])
        assert texts(read(name, data, skip=2)) == texts(items)[2:]


@pytest.mark.parametrize(
    ("data", "reason"), [(b"\x01\x02" * 9000, "binary"), (b"ab " * 9000, "line_too_long")]
)
def test_a_large_file_that_begins_like_no_text_is_one_note(
    data: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "PIECE_BYTES", 4096)
    assert reasons(read("big.txt", data, ReadOptions(max_line_bytes=1000))) == [("", "rejected", reason)]
    bad = b"good line\n" * 600 + data + b"\n" + b"good line\n" * 600
    items = read("big.txt", bad, ReadOptions(max_line_bytes=1000))
    assert "".join(text.text for text in texts(items)).count("good line\n") > 400, (
        "the pieces around are kept"
    )


def test_a_large_file_of_lines_streams_through_little_memory() -> None:
    line = json.dumps({"text": PROSE * 20}).encode() + b"\n"
    data = zstandard.compress(line * 30_000)  # 30 MB unpacked
    tracemalloc.start()
    try:
        items = reader.read(
            "a.jsonl.zst", io.BytesIO(data), ReadOptions(max_file_bytes=1 << 30, max_expansion=1e6)
        )
        assert sum(isinstance(item, ExtractedText) for item in items) == 30_000
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_disk_trouble_while_unpacking_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    from groundup.core.errors import GroundupError

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(reader.tempfile, "SpooledTemporaryFile", lambda size: Full())
    with pytest.raises(GroundupError, match=r"unpacking 'a.txt.gz': No space left.*TMPDIR"):
        read("a.txt.gz", gzip.compress(b"text"))


# All of them


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.csv.zst", "a.parquet"])
def test_after_a_stop_reading_goes_on_behind_what_was_given(name: str) -> None:
    told = [f"{PROSE}{n}" if n % 5 else "" for n in range(250)]
    if "jsonl" in name:
        data = "\n\n".join(json.dumps({"text": text}) for text in told).encode()
    else:
        data = ("text,n\n" + "\n\n".join(f'"{text}",{n}' for n, text in enumerate(told))).encode()
    data = parquet(text=told) if name == "a.parquet" else data
    data = gzip.compress(data) if name.endswith(".gz") else data
    data = zstandard.compress(data) if name.endswith(".zst") else data
    whole = read(name, data)
    assert len(whole) == 250
    for skip in (0, 1, 63, 64, 100, 199, 249, 250):
        assert read(name, data, skip=skip) == whole[skip:]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.parquet", "a.jsonl.gz", "a"])
def test_whatever_the_bytes_nothing_is_raised_and_it_takes_no_time(name: str) -> None:
    start = time.process_time()
    for data in (b"\n" * 3_000_000, b"\x00" * 100_000, b"[" * 100_000, b'"' * 1_000_001, b"<!--" * 16_000,
                 b"<!---->" * 9_000, b"From a 11:11 " * 5_000, b"a," * 500_000, b"\xff\xfe" * 9_999,
                 b"\x1f\x8b" * 9_999, b"PK\x03\x04" * 9_999, b"x" * 10_000_000, b"\xef\xbb\xbf", b"\x1b$" * 9,
                 bytes(range(256)) * 99, b"\r" * 100_000):  # fmt: skip
        items = read(name, data)
        assert items and not (texts(items) and data.startswith(b"\x00"))
    assert time.process_time() - start < 10


def test_real_files_of_every_packing_are_read() -> None:
    if not DATA.is_dir():
        pytest.skip(f"no {DATA}")
    counts = {
        "pretrain/novels/novels-00000.jsonl.gz": 273,
        "pretrain/wiki_demo.jsonl.zst": 30,
        "pretrain/c4_demo.parquet": 300,
        "pretrain/c4_demo.jsonl": 300,
        "web/text/dolma_documents_000.json.gz": 10,
    }
    for name, count in counts.items():
        items = read(name, (DATA / name).read_bytes(), ReadOptions())
        assert len(texts(items)) == count and len(items) == count, (name, reasons(items)[:3])


def test_a_reader_that_stumbles_costs_one_file_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    from groundup.text.ingest.formats import plain

    def stumbles(*_: Any) -> Any:
        yield ExtractedText("so far")
        raise KeyError("nobody thought of this")

    monkeypatch.setattr(plain, "read", stumbles)
    assert reasons(read("a.txt", b"x")) == [("", "changed", "reader_failed")]


@pytest.mark.parametrize("wrap", [gzip.compress, lambda data: zipped_in(data), lambda data: tarred(data)])
def test_archives_in_archives_are_named_and_not_opened(wrap: Callable[[bytes], bytes]) -> None:
    data = zipped("inner.txt")
    for _ in range(20):
        data = wrap(data)
    (note,) = read("nested", data)
    assert isinstance(note, ReadIssue) and (note.outcome, note.reason) == ("rejected", "unknown_format")
    assert note.detail in ("gzip", "zip", "tar")


def zipped_in(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("inner.zip", data)
    return out.getvalue()


def tarred(data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        about = tarfile.TarInfo("../../slipped")
        about.size = len(data)
        archive.addfile(about, io.BytesIO(data))
    return out.getvalue()
