"""Safe parsing of untrusted containers: size-limited zip archives, XML without entity expansion, HTML as plain text.

in:  untrusted bytes
out: their parts, or RefusedFile with the issue for the rejects log
"""

import errno
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from groundup.text.ingest.decode import without_surrogates
from groundup.text.ingest.html_bounds import bounded, too_many_tags, without_tags
from groundup.text.ingest.types import ReadIssue, ReadOptions

MAX_DIRECTORY_BYTES = 8 << 20
"""Size limit of a zip directory, which is read into memory: about a hundred thousand entries."""
MAX_XML_TAGS = 1_000_000
"""Tags of one XML part, of both kinds: each takes some 300 bytes and up to 20 microseconds."""
EXPANSION_FLOOR = 1 << 20
"""Decompressed bytes that are always allowed, whatever the ratio."""

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_OFFICE = "EncryptedPackage".encode("utf-16-le")
_END = struct.Struct("<4s8xII2x")
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError, ValueError)
_CLOSED_AT_ONCE = re.compile(
    r"<(?!(?:area|base|br|col|embed|hr|img|input|link|meta|wbr)\b)(\w+)((?:\s[^<>]*)?)/>"
)


class RefusedFile(Exception):
    """The file is rejected; `issue` holds the reason."""

    def __init__(self, note: ReadIssue) -> None:
        super().__init__(note.reason)
        self.issue = note


def open_zip(file: BinaryIO, options: ReadOptions, kind: str) -> zipfile.ZipFile:
    """Zip archive whose directory stays within the limits. Raises RefusedFile.

    `zipfile` never decompresses more of an entry than the directory declares, so checking the directory is enough.
    """
    size = file.seek(0, 2)
    if size > options.max_file_bytes:
        raise RefusedFile(ReadIssue("rejected", "too_large", value=size, threshold=options.max_file_bytes))
    _check_directory(file, size, kind)
    with _damage_refused(kind):
        archive = zipfile.ZipFile(file)
    unpacked = sum(entry.file_size for entry in archive.infolist())
    ratio_limit = max(EXPANSION_FLOOR, int(size * options.max_expansion))
    limit, reason = min((ratio_limit, "expands_too_much"), (options.max_file_bytes, "too_large"))
    if unpacked > limit:
        raise RefusedFile(ReadIssue("rejected", reason, value=unpacked, threshold=limit, detail=kind))
    return archive


def read_member(archive: zipfile.ZipFile, name: str, kind: str) -> bytes:
    """The bytes of one entry. Raises RefusedFile if it is missing, damaged or encrypted."""
    with _damage_refused(kind, f"{name}: "):
        entry = archive.getinfo(name)
        if entry.flag_bits & 1:
            raise RefusedFile(ReadIssue("rejected", "encrypted", detail=name))
        return archive.read(entry)


def parse_xml(data: bytes, kind: str) -> Any:
    """Root element, without entity expansion or network access. Raises RefusedFile."""
    from lxml import etree  # type: ignore[import-untyped]

    refuse_many_tags(data)
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise RefusedFile(ReadIssue("rejected", f"damaged_{kind}", detail=str(error))) from None


def refuse_many_tags(data: bytes) -> None:
    """Raises RefusedFile for XML that takes too long to be parsed."""
    if (tags := data.count(b"<")) > MAX_XML_TAGS:
        raise RefusedFile(ReadIssue("rejected", "too_many_tags", value=tags, threshold=MAX_XML_TAGS))


def plain_text(html: str) -> str:
    """All visible text of a page, not only its main content; paragraphs, lists and <pre> keep their lines."""
    from resiliparse.extract.html2text import extract_plain_text

    # XHTML allows self-closing elements; an HTML parser reads `<title/>` as an unclosed title.
    opened = _CLOSED_AT_ONCE.sub(r"<\1\2></\1>", bounded(html))
    if too_many_tags(opened):
        return without_tags(opened).strip()
    text: str = extract_plain_text(without_surrogates(opened)[0], preserve_formatting=True, alt_texts=False)
    return text.strip()


@contextmanager
def _damage_refused(kind: str, where: str = "") -> Iterator[None]:
    """Raises RefusedFile for what `zipfile` raises on damaged archives. Errors of the disk pass."""
    try:
        yield
    except (*_DAMAGED, OSError) as error:
        # A damaged offset makes `zipfile` seek to a negative position, which a file on disk refuses with EINVAL.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise RefusedFile(ReadIssue("rejected", f"damaged_{kind}", detail=f"{where}{error}"[:300])) from None


def _check_directory(file: BinaryIO, size: int, kind: str) -> None:
    """Checks the directory size in the zip's end record before the directory is read. Raises RefusedFile."""
    file.seek(max(0, size - (1 << 16) - _END.size))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        file.seek(0)
        head = file.read(8)
        encrypted = head == _OLE and _ENCRYPTED_OFFICE in head + file.read()
        raise RefusedFile(
            ReadIssue("rejected", "encrypted" if encrypted else f"damaged_{kind}", detail="no zip directory")
        )
    length = _END.unpack_from(tail, at)[1]
    if length > MAX_DIRECTORY_BYTES:
        raise RefusedFile(
            ReadIssue("rejected", "too_many_parts", value=length, threshold=MAX_DIRECTORY_BYTES, detail=kind)
        )
    file.seek(0)
