"""What packed documents are taken apart with: bounded zip archives, XML that can't explode, HTML as plain text.

in:  bytes from strangers
out: their parts, or Refused with the note for the ledger
"""

import re
import struct
import zipfile
import zlib
from typing import Any, BinaryIO

from groundup.text.ingest.decode import without_surrogates
from groundup.text.ingest.types import Options, ReadIssue

MOST_DIRECTORY_BYTES = 8 << 20
"""Of a zip's directory, which is read whole: a hundred thousand entries."""
EXPANSION_FLOOR = 1 << 20
"""Bytes below which nothing counts as a bomb, whatever its ratio."""

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_OFFICE = "EncryptedPackage".encode("utf-16-le")
_END = struct.Struct("<4s8xII2x")
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError, ValueError)
_CLOSED_AT_ONCE = re.compile(
    r"<(?!(?:area|base|br|col|embed|hr|img|input|link|meta|wbr)\b)(\w+)((?:\s[^<>]*)?)/>"
)


class Refused(Exception):
    """This file isn't read, and `note` says why."""

    def __init__(self, note: ReadIssue) -> None:
        super().__init__(note.reason)
        self.note = note


def open_zip(file: BinaryIO, options: Options, kind: str) -> zipfile.ZipFile:
    """An archive whose directory promises to stay within the limits. Raises Refused.

    `zipfile` never unpacks more of an entry than the directory says, so that looking at it is enough.
    """
    size = file.seek(0, 2)
    if size > options.file_bytes:
        raise Refused(ReadIssue("aside", "too_large", value=size, threshold=options.file_bytes))
    _check_directory(file, size, kind)
    try:
        archive = zipfile.ZipFile(file)
    except _DAMAGED as error:
        raise Refused(ReadIssue("aside", f"damaged_{kind}", detail=str(error))) from None
    unpacked = sum(entry.file_size for entry in archive.infolist())
    most = max(EXPANSION_FLOOR, int(size * options.expansion))
    limit, reason = min((most, "expands_too_much"), (options.file_bytes, "too_large"))
    if unpacked > limit:
        raise Refused(ReadIssue("aside", reason, value=unpacked, threshold=limit, detail=kind))
    return archive


def member(archive: zipfile.ZipFile, name: str, kind: str) -> bytes:
    """The bytes of one entry. Raises Refused if it is missing, damaged or encrypted."""
    try:
        entry = archive.getinfo(name)
        if entry.flag_bits & 1:
            raise Refused(ReadIssue("aside", "encrypted", detail=name))
        return archive.read(entry)
    except _DAMAGED as error:
        raise Refused(ReadIssue("aside", f"damaged_{kind}", detail=f"{name}: {error}"[:300])) from None


def xml(data: bytes, kind: str) -> Any:
    """The root element; entities stay unexpanded, nothing is fetched. Raises Refused."""
    from lxml import etree  # type: ignore[import-untyped]

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise Refused(ReadIssue("aside", f"damaged_{kind}", detail=str(error))) from None


def plain_text(html: str) -> str:
    """All of a page's visible text, not only its main part; paragraphs, lists and <pre> keep their lines."""
    from resiliparse.extract.html2text import extract_plain_text

    # XHTML may close any element at once; to an HTML parser, `<title/>` opens a title without end.
    opened = _CLOSED_AT_ONCE.sub(r"<\1\2></\1>", html)
    text: str = extract_plain_text(without_surrogates(opened)[0], preserve_formatting=True, alt_texts=False)
    return text.strip()


def _check_directory(file: BinaryIO, size: int, kind: str) -> None:
    """The end of a zip says how long its directory is, and where; no more is looked at before it's opened."""
    file.seek(max(0, size - (1 << 16) - _END.size))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        file.seek(0)
        head = file.read(8)
        locked = head == _OLE and _ENCRYPTED_OFFICE in head + file.read()
        raise Refused(
            ReadIssue("aside", "encrypted" if locked else f"damaged_{kind}", detail="no zip directory")
        )
    length = _END.unpack_from(tail, at)[1]
    if length > MOST_DIRECTORY_BYTES:
        raise Refused(
            ReadIssue("aside", "too_many_parts", value=length, threshold=MOST_DIRECTORY_BYTES, detail=kind)
        )
    file.seek(0)
