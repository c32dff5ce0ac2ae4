"""Files for `fuzz_readers.py`: small seeds of every format, mutations of bytes, bombs, hostile names.

in:  a random generator
out: (name, bytes, number of documents that can't be lost silently)

Each document has a marker word of its own. In formats with checksums a lost marker must have an entry in the rejects
log; for the others that number is 0, since a changed byte may be part of a valid file.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import docx
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

WORDS = re.findall(
    r"\w+",
    "the keeper of a light wrote every evening what ships had passed and which of them were late while rain fell on "
    "stones old maps show harbours that no longer exist because sand moved in and people went elsewhere to fish",
)
SCRIPTS = {
    "utf-8": "Schiffe fahren über das Meer. 船は海を渡る。Корабли плывут по морю. ",
    "utf-16": "Ships cross the sea — корабли плывут по морю. ",
    "utf-16-be": "\ufeffShips cross the sea — корабли плывут. ",
    "utf-32": "Ships cross the sea — 船は海を渡る。 ",
    "cp1252": "Les bateaux traversent la mer, près de la côte. Über allem das Licht. ",
    "cp1251": "Корабли плывут по морю, и каждый вечер смотритель зажигает огонь. ",
    "koi8-r": "Корабли плывут по морю, и каждый вечер смотритель зажигает огонь. ",
    "iso8859-2": "Łodzie płyną przez morze, a latarnik pisze co wieczór. ",
    "shift_jis": "船は海を渡り、灯台守は毎晩その日の出来事を書き留めた。",
    "euc-jp": "船は海を渡り、灯台守は毎晩その日の出来事を書き留めた。",
    "iso2022_jp": "船は海を渡り、灯台守は毎晩その日の出来事を書き留めた。",
    "gb18030": "船只穿过大海，灯塔看守人每天晚上都会写下经过的船只。",
    "big5": "船隻穿過大海，燈塔看守人每天晚上都會寫下經過的船隻。",
    "euc-kr": "배는 바다를 건너고 등대지기는 매일 저녁 지나간 배를 적는다. ",
    "cp1256": "السفن تعبر البحر وحارس المنارة يكتب كل مساء. ",
    "cp874": "เรือแล่นข้ามทะเล และผู้ดูแลประภาคารเขียนทุกเย็น ",
}
INTERESTING = (
    b"\0", b"\xff", b"\n", b"\r", b"\r\n", b"\0" * 512, b"\xff\xfe", b"\xef\xbb\xbf", b"\x1f\x8b\x08", b"BZh9",
    b"PK\x03\x04",
    b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"PAR1", b"%PDF-1.7\n", b"<|endoftext|>\n", b"\n\n", b"{",
    b"[", b'"', b"\\", b"<", b">",
    b"<!--",
    b"<![CDATA[", b"&", b"\ud800".decode("unicode_escape").encode("utf-8", "surrogatepass"), b'"\\ud800"',
    b"NaN", b"1e999",
    b"-1", b"\xe2\x80\xae", b"\xe2\x80\xa8", b"\x1a", b"\x1b$B", b"From x@y Thu Jan  1 00:00:00 1970\n",
    b"WARC/1.0\r\n",
    b"Content-Length: 99999999999\r\n", b"Content-Type: multipart/mixed; boundary=\"b\"\n\n--b\n",
    b"\x7f\xff\xff\xff", b"\xff" * 8,
)  # fmt: skip
NAMES = (
    b"\xff\xfe.{}", b"back\\xff.{}", b"\\xff\xff.{}", b"new\nline.{}", b"tab\t.{}", b" space .{}", b"-rf.{}",
    b"#1.{}", b"a#part1.{}",
    b"quote\"'.{}", b"[a-z]*.{}", b"%s%n.{}", b"{{}}.{}", b"\xe2\x80\xaertl.{}", b"e\xcc\x81.{}", b"\xc3\xa9.{}",
    b"x" * 200 + b".{}",
    b"..{}", b"$HOME.{}", b"~.{}", b"\xed\xa0\x80.{}", b"con.{}", b"!bang.{}", b"null\x01.{}",
    b"\x1b[31m.{}", b"C:\\a.{}",
)  # fmt: skip


@dataclass(frozen=True)
class Seed:
    """A file: its suffix, its bytes, and the number of documents that it can't lose without an entry."""

    suffix: str
    data: bytes
    documents: int = 0


class Seeds:
    """Makes seeds; markers count through one batch."""

    def __init__(self, draw: random.Random) -> None:
        self.draw, self.count = draw, 0

    def words(self, number: int) -> str:
        return " ".join(self.draw.choices(WORDS, k=number)).capitalize() + "."

    def text(self, paragraphs: int = 3) -> str:
        """A document with a marker."""
        self.count += 1
        marker = f"marker{self.count:05d}x "
        return marker + "\n\n".join(self.words(self.draw.randint(8, 60)) for _ in range(paragraphs))

    def texts(self, most: int = 12) -> list[str]:
        return [self.text(self.draw.randint(1, 4)) for _ in range(self.draw.randint(1, most))]

    def any(self) -> Seed:
        """A seed of any format."""
        kind: Callable[[Seeds], Seed] = self.draw.choice(KINDS)
        return kind(self)


def plain(seeds: Seeds) -> Seed:
    encoding = seeds.draw.choice(list(SCRIPTS))
    text = SCRIPTS[encoding] * seeds.draw.randint(1, 20) + "\n" + seeds.words(9)
    return Seed(seeds.draw.choice(("txt", "md", "log", "", "py")), text.encode(encoding, "replace"))


def separated(seeds: Seeds) -> Seed:
    mark = seeds.draw.choice(
        ("\n<|endoftext|>\n", "\r\n<|endoftext|>\r\n", "\n\n\n", "\n# Heading\n", "\n<|endoftext|> \n\n")
    )
    return Seed("txt", mark.join(seeds.texts()).encode())


def html(seeds: Seeds) -> Seed:
    body = "".join(f"<p>{text}</p><ul><li>{seeds.words(5)}</li></ul>" for text in seeds.texts(4))
    head = seeds.draw.choice(
        (
            "<!DOCTYPE html><html>",
            "<html>",
            "<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'>",
        )
    )
    page = f"{head}<head><meta charset=utf-8><title>T</title></head><body><article>{body}</article></body></html>"
    return Seed(seeds.draw.choice(("html", "htm", "xhtml", "txt")), page.encode())


def rows(seeds: Seeds) -> list[dict[str, object]]:
    """Rows in one of the layouts that the readers know, or in none."""
    layout = seeds.draw.choice(("text", "messages", "conversations", "alpaca", "question", "other", "nested"))
    made: list[dict[str, object]] = []
    for number, text in enumerate(seeds.texts()):
        made.append({
            "text": {"text": text, "id": number, "url": "http://a/b"},
            "messages": {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": text}]},
            "conversations": {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "Yes."}]},
            "alpaca": {"instruction": text, "input": "", "output": "Done."},
            "question": {"question": "Why?", "answer": text, "context": "None."},
            "other": {"body": text},
            "nested": {"text": text, "meta": {"a": [1, 2, {"b": None}], "text": "x"}},
        }[layout])  # fmt: skip
    return made


def jsonl(seeds: Seeds) -> Seed:
    lines = [json.dumps(row, ensure_ascii=seeds.draw.random() < 0.5) for row in rows(seeds)]
    return Seed(seeds.draw.choice(("jsonl", "ndjson", "json")), ("\n".join(lines) + "\n").encode())


def json_array(seeds: Seeds) -> Seed:
    indent = seeds.draw.choice((None, 1, 4))
    return Seed(
        "json",
        json.dumps(rows(seeds), indent=indent).encode(seeds.draw.choice(("utf-8", "utf-8-sig", "utf-16"))),
    )


def table(seeds: Seeds) -> Seed:
    out = io.StringIO()
    suffix, delimiter = seeds.draw.choice((("csv", ","), ("tsv", "\t"), ("csv", ";"), ("csv", "|")))
    writer = csv.writer(
        out, delimiter=delimiter, quoting=seeds.draw.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    )
    made = rows(seeds)
    writer.writerow(made[0])
    writer.writerows(row.values() for row in made)
    return Seed(suffix, out.getvalue().encode(seeds.draw.choice(("utf-8", "utf-8-sig", "utf-16"))))


def parquet(seeds: Seeds) -> Seed:
    out, texts = io.BytesIO(), seeds.texts(40)
    kind = seeds.draw.choice(("none", "snappy", "zstd", "gzip"))
    names = seeds.draw.choice(("text", "text", "body"))
    pq.write_table(pa.table({names: texts, "n": range(len(texts))}), out, row_group_size=7, compression=kind)
    return Seed("parquet", out.getvalue())


def arrow(seeds: Seeds) -> Seed:
    out, made = io.BytesIO(), pa.table({"text": seeds.texts()})
    with pa.ipc.new_file(out, made.schema) as writer:
        writer.write_table(made)
    return Seed("arrow", out.getvalue())


def word(seeds: Seeds) -> Seed:
    document, out, texts = docx.Document(), io.BytesIO(), seeds.texts()
    for text in texts:
        document.add_heading(seeds.words(3), 1)
        document.add_paragraph(text)
        document.add_paragraph("item", style="List Bullet")
    document.add_table(2, 2).rows[0].cells[0].text = "cell"
    document.save(out)
    return Seed("docx", out.getvalue(), len(texts))


def epub(seeds: Seeds) -> Seed:
    texts, out = seeds.texts(), io.BytesIO()
    names = [f"c{n}.xhtml" for n in range(len(texts))]
    items = "".join(f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in names)
    spine = "".join(f'<itemref idref="{name}"/>' for name in names)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        rootfile = '<rootfiles><rootfile full-path="b.opf"/></rootfiles>'
        archive.writestr("META-INF/container.xml", f'<container xmlns="urn:x">{rootfile}</container>')
        archive.writestr(
            "b.opf", f'<package xmlns="urn:y"><manifest>{items}</manifest><spine>{spine}</spine></package>'
        )
        for name, text in zip(names, texts, strict=True):
            archive.writestr(name, f"<html><body><h1>One</h1><p>{text}</p></body></html>")
    return Seed("epub", out.getvalue(), len(texts))


def pdf(seeds: Seeds) -> Seed:
    texts = [text.replace("\n", " ") for text in seeds.texts(5)]
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"", b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
    pages = []
    for text in texts:
        lines = [text[at : at + 80] for at in range(0, len(text), 80)]
        drawn = "BT /F 10 Tf 30 780 Td 12 TL " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
        objects.append(b"<</Length %d>>stream\n%b\nendstream" % (len(drawn), drawn.encode()))
        page = (
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</Font<</F 3 0 R>>>>/Contents %d 0 R>>"
        )
        objects.append((page % len(objects)).encode())
        pages.append(f"{len(objects)} 0 R")
    objects[1] = f"<</Type/Pages/Kids[{' '.join(pages)}]/Count {len(pages)}>>".encode()
    out, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table_at, lines_ = len(out), "".join(f"{place:010d} 00000 n \n" for place in places)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{lines_}".encode()
    out += f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{table_at}\n%%EOF\n".encode()
    return Seed("pdf", out)


def message(seeds: Seeds) -> bytes:
    body = seeds.draw.choice((
        "Content-Type: text/plain; charset=utf-8\n\n{}\n",
        "MIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=q\n\n--q\n"
        "Content-Type: text/plain\n\n{}\n--q\n"
        "Content-Type: text/html\n\n<p>x</p>\n--q--\n",
        "Content-Type: multipart/mixed; boundary=q\n\n--q\n\n{}\n--q\nContent-Disposition: attachment\n\nAAAA\n--q--\n",
        "Content-Type: message/rfc822\n\nSubject: inner\n\n{}\n",
    ))  # fmt: skip
    head = "Received: by x\nFrom: a@b.example\nDate: Thu, 1 Jan 1970 00:00:00 +0000\nSubject: =?utf-8?q?h=C3=A4?=\n"
    return (head + body.format(seeds.text())).encode()


def mail(seeds: Seeds) -> Seed:
    return Seed("eml", message(seeds))


def mailbox(seeds: Seeds) -> Seed:
    messages = [message(seeds) for _ in range(seeds.draw.randint(1, 6))]
    return Seed("mbox", b"".join(b"From a@b Thu Jan  1 00:00:00 1970\n" + each + b"\n" for each in messages))


def records(seeds: Seeds) -> list[bytes]:
    made = [b"WARC/1.0\r\nWARC-Type: warcinfo\r\nContent-Length: 2\r\n\r\nok\r\n\r\n"]
    for text in seeds.texts(6):
        page = f"<html><body><article><p>{text}</p></article></body></html>".encode()
        encoding = seeds.draw.choice((b"", b"Content-Encoding: gzip\r\n", b"Transfer-Encoding: chunked\r\n"))
        page = gzip.compress(page, mtime=0) if b"gzip" in encoding else page
        page = b"%x\r\n%b\r\n0\r\n\r\n" % (len(page), page) if b"chunked" in encoding else page
        body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + encoding + b"\r\n" + page
        head = b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/%d\r\n" % seeds.count
        made.append(
            head
            + b"Content-Type: application/http\r\nContent-Length: %d\r\n\r\n%b\r\n\r\n" % (len(body), body)
        )
    return made


def warc(seeds: Seeds) -> Seed:
    made = records(seeds)
    if seeds.draw.random() < 0.5:
        return Seed("warc.gz", b"".join(gzip.compress(each, mtime=0) for each in made))
    return Seed("warc", b"".join(made))


def arc(seeds: Seeds) -> Seed:
    out = b"filedesc://x.arc 0.0.0.0 20080430204825 text/plain 4\n1 0 \n\n"
    for text in seeds.texts(5):
        page = (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html><body><p>"
            + text.encode()
            + b"</p></body></html>"
        )
        out += b"http://a.example/ 1.2.3.4 20080430204825 text/html %d\n%b\n" % (len(page), page)
    return Seed("arc", out)


def archive(seeds: Seeds) -> Seed:
    """An archive, perhaps within another one."""
    inner, out = seeds.any(), io.BytesIO()
    if seeds.draw.random() < 0.5:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr(f"../{seeds.count}.{inner.suffix}", inner.data)
        return Seed("zip", out.getvalue())
    with tarfile.open(fileobj=out, mode=seeds.draw.choice(("w", "w:gz"))) as packed:
        entry = tarfile.TarInfo(f"a.{inner.suffix}")
        entry.size = len(inner.data)
        packed.addfile(entry, io.BytesIO(inner.data))
    return Seed("tar", out.getvalue())


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gz": partial(gzip.compress, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}

DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "gz": lambda: zlib.decompressobj(31),
    "bz2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
    "zst": lambda: zstandard.ZstdDecompressor().decompressobj(),
}


def compressed(seeds: Seeds) -> Seed:
    """JSON lines in several members, each with a checksum; or any other file in one member."""
    suffix, pack = seeds.draw.choice(list(COMPRESSORS.items()))
    if seeds.draw.random() < 0.4:
        inner = seeds.any()
        return Seed(f"{inner.suffix}.{suffix}", pack(inner.data))
    lines = [json.dumps({"text": text}).encode() + b"\n" for text in seeds.texts(30)]
    size = seeds.draw.randint(1, len(lines))
    members = [b"".join(lines[at : at + size]) for at in range(0, len(lines), size)]
    return Seed(f"jsonl.{suffix}", b"".join(map(pack, members)), len(lines))


KINDS = (
    plain, plain, separated, html, jsonl, json_array, table, parquet, arrow, word, epub, pdf, mail, mailbox, warc,
    arc, archive,
    compressed, compressed, compressed,
)  # fmt: skip
