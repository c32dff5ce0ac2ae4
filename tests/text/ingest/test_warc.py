"""Every record of an archive becomes a document or has its reason, also in archives that are cut, damaged or lie."""

import gzip
import io
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from groundup.text.ingest.extract import main_text
from groundup.text.ingest.formats import reader
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions

DATA = Path(__file__).parents[4] / "shared" / "data" / "web" / "warc"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no archives in {DATA}")
OPTIONS = ReadOptions(max_file_bytes=1 << 22, max_expansion=100)
PROSE = "The keeper lit the lamp at dusk, and one by one the ships came home out of the dark. "
RECORD = re.compile(rb"(?:^|\n)WARC/\d\.\d+[ \t]*\r?\n")


def read(
    data: bytes, path: str = "crawl.warc", options: ReadOptions = OPTIONS, skip: int = 0
) -> list[ExtractedText | ReadIssue]:
    return list(reader.read(path, io.BytesIO(data), options, skip))


def reasons(items: list[ExtractedText | ReadIssue]) -> list[tuple[str, str, str]]:
    return [(item.position, item.outcome, item.reason) for item in items if isinstance(item, ReadIssue)]


def texts(items: list[ExtractedText | ReadIssue]) -> list[ExtractedText]:
    return [item for item in items if isinstance(item, ExtractedText)]


def page(number: int = 1, prose: str = PROSE * 9) -> bytes:
    menu = "<nav><a href='/'>Home</a> <a href='/about'>About us</a></nav>"
    return f"<!doctype html><html><body>{menu}<main><h1>Page {number}</h1><p>{prose}</p></main></body></html>".encode()


def http(
    body: bytes, kind: str = "text/html; charset=utf-8", status: str = "200 OK", **headers: str
) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def record(body: bytes, kind: str = "response", uri: str = "http://a.example/", **headers: str) -> bytes:
    said = {"WARC-Type": kind, "WARC-Target-URI": uri, "Content-Type": "application/http; msgtype=response"}
    said |= {"Content-Length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = "\r\n".join(["WARC/1.0", *(f"{name}: {value}" for name, value in said.items() if value)])
    return lines.encode() + b"\r\n\r\n" + body + b"\r\n\r\n"


def crawl(pages: int = 5) -> list[bytes]:
    return [record(http(page(n)), uri=f"http://a.example/{n}") for n in range(1, pages + 1)]


def headings(items: list[ExtractedText | ReadIssue]) -> list[str]:
    return [text.text.split("\n")[0] for text in texts(items)]


# Archives of others


def archives() -> list[Any]:
    found = sorted(file for file in DATA.rglob("*") if re.search(r"\.(w?arc|wet|wat)(\.gz)?$", file.name))
    missing = pytest.mark.skip(reason=f"no archives in {DATA}")
    return [pytest.param(file, id=file.name) for file in found] or [pytest.param(DATA, marks=missing)]


@cache
def archive(file: Path) -> list[ExtractedText | ReadIssue]:
    return read(file.read_bytes(), file.name, ReadOptions())


def outcomes(items: list[ExtractedText | ReadIssue]) -> Counter[str]:
    """How each record ended: as a document, or aside."""
    ends = [item for item in items if isinstance(item, ExtractedText) or item.outcome == "rejected"]
    assert [item.position for item in ends] == [str(n) for n in range(1, len(ends) + 1)]
    return Counter("document" if isinstance(item, ExtractedText) else item.reason for item in ends)


@pytest.mark.parametrize("file", archives())
def test_of_every_archive_each_record_is_read_or_has_its_reason(file: Path) -> None:
    data = file.read_bytes()
    plain = gzip.decompress(data) if file.suffix == ".gz" else data
    found = outcomes(archive(file))
    between = found.pop("not_a_record", 0)
    if ".arc" in file.name:
        starts = re.findall(rb"(?:^|\n)\S+:\S* \S+ \d{14} \S+ \d+\n", plain)
        assert (found.total(), between) == (len(starts), 0)
    else:
        assert found.total() == len(RECORD.findall(plain))
        assert between == (file.name in ("broken.warc", "example-trunc.warc"))


@pytest.mark.parametrize("file", archives())
def test_where_fastwarc_reads_an_archive_the_types_agree(file: Path) -> None:
    with file.open("rb") as opened:
        try:
            types = Counter(found.headers["WARC-Type"] for found in ArchiveIterator(opened, parse_http=False))
        except OSError as error:
            pytest.skip(f"FastWARC gives up: {error}")
    found = outcomes(archive(file))
    for kind in ("warcinfo", "request", "metadata", "revisit"):
        assert found[kind] == types[kind], kind
    assert found.total() == types.total()


@pytest.mark.parametrize("file", archives())
def test_reading_goes_on_after_any_record(file: Path) -> None:
    items = archive(file)
    last = int(items[-1].position)
    for skip in {last * 3 // 4, last - 1}:
        rest = [item for item in items if int(item.position) > skip]
        assert read(file.read_bytes(), file.name, ReadOptions(), skip) == rest


@needs_data
def test_common_crawls_own_text_of_a_page_agrees_with_ours() -> None:
    ours, theirs = (
        texts(archive(DATA / f"cc-main-2024-22_whirlwind.{kind}.gz"))[0] for kind in ("warc", "warc.wet")
    )
    assert ours.path == theirs.path == "https://an.wikipedia.org/wiki/Escopete"
    words, all_words = (Counter(re.findall(r"\w+", text.text)) for text in (ours, theirs))
    assert len(words) > 50 and (words & all_words).total() > 0.95 * words.total()


@needs_data
def test_the_same_crawl_as_arc_and_as_warc_gives_the_same_documents() -> None:
    arc, warc = (
        {text.path: text.text for text in texts(archive(DATA / f"heritrix_archive-org_2008.{kind}.gz"))}
        for kind in ("arc", "warc")
    )
    assert len(arc) > 100 and arc == warc


# What a record says it is


def test_an_archive_written_by_fastwarc_is_read() -> None:
    written = io.BytesIO()
    for number in range(3):
        made = WarcRecord()
        made.init_headers(record_type=WarcRecordType.response)
        made.headers["WARC-Target-URI"] = f"http://a.example/{number}"
        made.headers["Content-Type"] = "application/http; msgtype=response"
        made.set_bytes_content(http(page(number)))
        made.write(written)
    items = read(written.getvalue())
    assert headings(items) == ["Page 0", "Page 1", "Page 2"] and not reasons(items)
    assert [text.path for text in texts(items)] == [f"http://a.example/{n}" for n in range(3)]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (record(b"software: x", "warcinfo"), "warcinfo"),
        (record(b"GET / HTTP/1.1\r\n\r\n", "request"), "request"),
        (record(http(b""), "revisit"), "revisit"),
        (record(b"fetchTimeMs: 1", "metadata"), "metadata"),
        (record(b"more of it", "continuation"), "continuation"),
        (record(b"?", "poem"), "unknown_record_type"),
        (record(b"20080430 a.example", uri="dns:a.example", Content_Type="text/dns"), "crawler_record"),
        (record(b"wget -r", "resource", "metadata://wget/arguments", Content_Type="text/plain"), "crawler_record"),
        (record(http(page(), status="404 Not Found")), "http_status"),
        (record(http(b"")), "empty"),
        (record(b"HTTP/1.1 200 OK\r\nContent-Type: text/html"), "empty"),
        (record(b""), "empty"),
        (record(http(b"body { margin: 0 }", "text/css")), "not_a_document"),
        (record(http(b"\x89PNG\r\n\x1a\n....", "text/html")), "not_a_document"),
        (record(http(b"<html><body><nav>Home</nav></body></html>")), "no_main_text"),
        (record(http(b"\x00\x01\x02" * 999)), "binary"),
        (record(b"x" * (5 << 20)), "too_large"),
    ],
)  # fmt: skip
def test_a_record_that_gives_no_document_says_why(made: bytes, reason: str) -> None:
    items = read(made + crawl(1)[0])
    assert reasons(items) == [("1", "rejected", reason)]
    assert headings(items) == ["Page 1"]


def test_what_is_not_html_is_read_by_the_module_for_it() -> None:
    book = io.BytesIO()
    with zipfile.ZipFile(book, "w") as archive:
        archive.writestr("mimetype", "application/epub+zip")
        archive.writestr("META-INF/container.xml", '<container><rootfile full-path="a.opf"/></container>')
        archive.writestr("a.opf", '<package><manifest><item id="a" href="a.html"/></manifest><spine>'
                                  '<itemref idref="a"/></spine></package>')  # fmt: skip
        archive.writestr("a.html", page().decode())
    made = [
        record(http(PROSE.encode(), "text/plain")),
        record(http("Grüße aus Köln. ".encode("latin-1") * 20, "text/plain; charset=iso-8859-1")),
        record(http(book.getvalue(), "application/octet-stream")),
        record(http(page(4), "application/x-download")),
        record(http(page(5), "text/plain")),
        record(page(6), "resource", Content_Type="text/html"),
        record(PROSE.encode(), "conversion", Content_Type="text/plain"),
        record(page(8), Content_Type=""),
    ]
    items = read(b"".join(made))
    assert [text.position for text in texts(items)] == list("12345678")
    assert [text.text[:6] for text in texts(items)][1] == "Grüße "
    assert reasons(items) == [("2", "changed", "decoded_as_cp1252"), ("5", "changed", "wrong_media_type")]


def test_the_charset_of_the_header_counts_where_bytes_and_page_leave_it_open() -> None:
    prose = "Смотритель зажёг лампу, и корабли вернулись домой. " * 9
    said = record(http(page(1, prose).decode().encode("cp1251"), "text/html; charset=windows-1251"))
    lying = record(http(page(1, prose), "text/html; charset=iso-8859-1"))
    for text in texts(read(said + lying)):
        assert "Смотритель" in text.text


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda data: zlib.compress(data)[2:-4]),
        ("br", lambda data: bytes(pa.Codec("brotli").compress(data))),
        ("zstd", lambda data: bytes(pa.Codec("zstd").compress(data))),
        ("gzip, identity", gzip.compress),
        ("gzip", lambda data: data),
        ("br", lambda data: data),
    ],
)
def test_packed_pages_are_unpacked_and_headers_that_lie_passed_over(
    encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    items = read(record(http(pack(page()), Content_Encoding=encoding)))
    assert headings(items) == ["Page 1"] and not reasons(items)


def chunked(data: bytes, size: int = 100) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return (
        b"".join(b"%x;x=y\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nTrailer: x\r\n\r\n"
    )


def test_chunks_are_joined_and_what_is_not_chunked_is_left_as_it_is() -> None:
    bodies = [chunked(page(1)), chunked(gzip.compress(page(2))), page(3), gzip.compress(page(4))]
    made = [record(http(body, Transfer_Encoding="chunked", Content_Encoding="gzip")) for body in bodies]
    items = read(b"".join(made))
    assert headings(items) == ["Page 1", "Page 2", "Page 3", "Page 4"] and not reasons(items)
    damaged = chunked(page()).replace(b"64;", b"zz;").replace(b"zz;", b"64;", 2)
    items = read(record(http(damaged, Transfer_Encoding="chunked")))
    assert headings(items) == ["Page 1"] and reasons(items) == [("1", "changed", "damaged_chunks")]


def test_a_page_that_unpacks_without_end_goes_aside() -> None:
    bomb = gzip.compress(b"<p>" * (8 << 20))
    for encoding, body in (("gzip", bomb), ("deflate", zlib.compress(b"<p>" * (8 << 20)))):
        items = read(record(http(body, Content_Encoding=encoding)))
        assert reasons(items) == [("1", "rejected", "expands_too_much")]
    packed = gzip.compress(record(http(b"<p>" * (1 << 20))))
    items = read(packed + gzip.compress(crawl(1)[0]), "crawl.warc.gz")
    assert reasons(items) == [("1", "rejected", "expands_too_much")] and headings(items) == ["Page 1"]


def test_a_page_that_the_crawler_cut_off_is_kept_and_noted() -> None:
    items = read(record(http(page()), WARC_Truncated="length"))
    assert headings(items) == ["Page 1"] and reasons(items) == [("1", "changed", "truncated_by_crawler")]


def test_a_parser_that_fails_costs_one_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(data: bytes, *args: Any) -> Any:
        if b"Page 2" in data:
            raise ValueError("unforeseen")
        return main_text(data, *args)

    monkeypatch.setattr("groundup.text.ingest.formats.html.main_text", fail)
    items = read(b"".join(crawl(3)))
    assert headings(items) == ["Page 1", "Page 3"] and reasons(items) == [("2", "rejected", "reader_failed")]


# Archives that are packed, cut, damaged


PACKED: dict[str, Callable[[list[bytes]], bytes]] = {
    "crawl.warc": b"".join,
    "crawl.warc.gz": lambda made: b"".join(map(gzip.compress, made)),
    "one-member.warc.gz": lambda made: gzip.compress(b"".join(made)),
    "crawl.warc.zst": lambda made: b"".join(bytes(pa.Codec("zstd").compress(each)) for each in made),
}


@pytest.mark.parametrize("name", PACKED)
def test_an_archive_may_be_packed_in_any_way(name: str) -> None:
    items = read(PACKED[name](crawl()), name)
    assert headings(items) == [f"Page {n}" for n in range(1, 6)] and not reasons(items)


@pytest.mark.parametrize("name", ["crawl.warc", "crawl.warc.gz", "one-member.warc.gz"])
def test_of_an_archive_that_is_cut_all_records_before_are_kept_and_the_cut_is_noted(name: str) -> None:
    data = PACKED[name](crawl(3))
    ends = [len(PACKED[name](crawl(n))) for n in (1, 2, 3)]
    for cut in range(30, len(data) - 30, 41):
        items = read(data[:cut], name)
        last = items[-1]
        assert isinstance(last, ReadIssue) and last.outcome == "rejected", cut
        if "one" not in name:
            assert len(texts(items)) >= sum(end <= cut for end in ends)


def test_a_damaged_member_costs_no_other_record() -> None:
    members = [gzip.compress(each) for each in crawl()]
    for broken in range(5):
        middle, member = len(members[broken]) // 2, members[broken]
        damaged = member[:middle] + b"\xff" * 9 + member[middle + 9 :]
        items = read(b"".join([*members[:broken], damaged, *members[broken + 1 :]]), "crawl.warc.gz")
        kept = [f"Page {n}" for n in range(1, 6) if n != broken + 1]
        assert [text for text in headings(items) if text in kept] == kept
        assert {reason for _, _, reason in reasons(items)} <= {"truncated_record", "damaged_gzip"}
        assert reasons(items)
    garbage = members[0] + b"\x00" * 100 + members[1] + b"garbage" * 99 + members[2]
    items = read(garbage, "crawl.warc.gz")
    assert headings(items) == ["Page 1", "Page 2", "Page 3"] and reasons(items) == [
        ("3", "rejected", "damaged_gzip")
    ]


@pytest.mark.parametrize(
    ("length", "reason"),
    [
        ("999999", "bad_record"),
        ("10", "not_a_record"),
        ("99999999999", "too_large"),
        ("many", "bad_record"),
        ("9" * 5000, "bad_record"),
    ],
)
def test_a_record_of_wrong_length_ends_where_the_next_begins(length: str, reason: str) -> None:
    first, second, third = crawl(3)
    wrong = re.sub(rb"Content-Length: \d+", b"Content-Length: " + length.encode(), second, count=1)
    items = read(first + wrong + third)
    assert headings(items)[0] == "Page 1" and headings(items)[-1] == "Page 3"
    assert reason in {reason for _, _, reason in reasons(items)}


def test_what_is_no_archive_gives_notes_only() -> None:
    for data in (
        b"no archive\n" * 9999,
        b"\x1f\x8b\x08" * 9999,
        gzip.compress(b""),
        b"WARC/1.0\r\n",
        b"\r\n",
    ):
        items = read(data)
        assert items and not texts(items)
    assert reasons(read(gzip.compress(b""), "a.warc.gz")) == [("", "rejected", "empty")]


# ARC


def arc(url: str, body: bytes, kind: str = "text/html", extra: str = "") -> bytes:
    return f"{url} 192.0.2.1 20080430204825 {kind}{extra} {len(body)}\n".encode() + body + b"\n"


ARC_HEAD = arc(
    "filedesc://a.arc", b"1 0 x\nURL IP-address Archive-date Content-type Archive-length\n", "text/plain"
)


@pytest.mark.parametrize("pack", [b"".join, lambda made: b"".join(map(gzip.compress, made))])
def test_arc_is_read_as_warc_is(pack: Callable[[list[bytes]], bytes]) -> None:
    made = [
        ARC_HEAD,
        arc("http://a.example/1", http(page(1))),
        arc("http://a.example/a space", http(page(2)), extra=" 200 - - 1234 a.arc"),
        arc("dns:a.example", b"20080430 a.example", "text/dns"),
        arc("http://a.example/3", page(3), "no-type"),
        arc("http://a.example/4", http(b"gone", status="410 Gone")),
    ]
    items = read(pack(made), "crawl")
    assert headings(items) == ["Page 1", "Page 2", "Page 3"]
    assert [text.path for text in texts(items)][1] == "http://a.example/a space"
    assert [reason for _, _, reason in reasons(items)] == ["warcinfo", "crawler_record", "http_status"]


def test_an_arc_record_of_wrong_length_ends_where_the_next_begins() -> None:
    first, second, third = (arc(f"http://a.example/{n}", http(page(n))) for n in (1, 2, 3))
    size = str(len(http(page(2)))).encode()
    for wrong in (b"9", b"99999"):
        items = read(ARC_HEAD + first + second.replace(b" " + size + b"\n", b" " + wrong + b"\n", 1) + third)
        assert headings(items)[0] == "Page 1" and headings(items)[-1] == "Page 3"
        assert reasons(items)[1:]
