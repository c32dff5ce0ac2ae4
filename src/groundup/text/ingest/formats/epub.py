"""EPUB -> one document per book: title, then chapters in reading order.

in:  an EPUB file (a zip of XHTML)
out: Markdown-like text; unreadable chapters are reported, the others are kept

A book is one document rather than one per chapter because later chapters depend on earlier ones and the files inside
an EPUB rarely match its chapters; documents above `max_document_bytes` are cut afterwards.
"""

import posixpath
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import unquote

from groundup.text.ingest.decode import Undecodable, decode
from groundup.text.ingest.formats._zip_safety import RefusedFile, open_zip, parse_xml, plain_text, read_member
from groundup.text.ingest.formats.plain import document
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions

_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document")
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.-]+)""")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?=$|[-_])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Book:
    title: str
    language: str
    chapters: tuple[str, ...]


def read(
    path: str, file: BinaryIO, options: ReadOptions, skip: int = 0
) -> Iterator[ExtractedText | ReadIssue]:
    """The whole book as one document; `skip` is not used."""
    try:
        with open_zip(file, options, "epub") as archive:
            book = _book(archive)
            encrypted = _encrypted_entries(archive)
            if encrypted.intersection(book.chapters):
                raise RefusedFile(ReadIssue("rejected", "encrypted", detail="digital rights management"))
            parts = [_chapter(archive, name) for name in book.chapters]
    except RefusedFile as refused:
        yield refused.issue
        return
    texts = [part for part in parts if isinstance(part, str) and part]
    failed = [part for part in parts if isinstance(part, ReadIssue)]
    if not texts:
        first = failed[0] if failed else ReadIssue("rejected", "empty")
        yield ReadIssue("rejected", first.reason, detail=first.detail)
        return
    yield from failed
    heading = [f"# {book.title}"] if book.title and not texts[0].lstrip("# ").startswith(book.title) else []
    yield from document("\n\n".join([*heading, *texts]), "", options, language=book.language)


def _book(archive: zipfile.ZipFile) -> _Book:
    """Title, language and spine (reading order) from the package file. Raises RefusedFile."""
    container = parse_xml(read_member(archive, _CONTAINER, "epub"), "epub")
    rootfile = next((e for e in container.iter("{*}rootfile") if e.get("full-path")), None)
    if rootfile is None:
        raise RefusedFile(ReadIssue("rejected", "damaged_epub", detail=f"{_CONTAINER} names no package file"))
    package_name = rootfile.get("full-path")
    package = parse_xml(read_member(archive, package_name, "epub"), "epub")
    items = {item.get("id"): item for item in package.iter("{*}item")}
    spine = [items.get(ref.get("idref")) for ref in package.iter("{*}itemref")]
    folder = posixpath.dirname(package_name)
    chapters = tuple(
        dict.fromkeys(
            posixpath.normpath(posixpath.join(folder, unquote(item.get("href", "").partition("#")[0])))
            for item in spine
            if item is not None
            and item.get("media-type", _PAGES[0]) in _PAGES
            and "nav" not in item.get("properties", "").split()
        )
    )
    if not chapters:
        raise RefusedFile(ReadIssue("rejected", "damaged_epub", detail=f"{package_name} names no chapters"))
    language = _LANGUAGE.match(_metadata(package, "language"))
    language_code = language[0].lower() if language else ""
    return _Book(_metadata(package, "title"), "" if language_code == "und" else language_code, chapters)


def _metadata(package: Any, name: str) -> str:
    """The first `dc:name` element of the metadata as one line, "" if there is none."""
    element = next(package.iter("{http://purl.org/dc/elements/1.1/}" + name), None)
    return "" if element is None else " ".join("".join(element.itertext()).split())


def _encrypted_entries(archive: zipfile.ZipFile) -> set[str]:
    """Names of the encrypted entries; books without DRM can contain encrypted fonts."""
    if _ENCRYPTION not in archive.NameToInfo:
        return set()
    listed = parse_xml(read_member(archive, _ENCRYPTION, "epub"), "epub")
    return {unquote(reference.get("URI", "")) for reference in listed.iter("{*}CipherReference")}


def _chapter(archive: zipfile.ZipFile, name: str) -> str | ReadIssue:
    try:
        data = read_member(archive, name, "epub")
        return plain_text(_decoded(data))
    except RefusedFile as refused:
        return ReadIssue("rejected", "damaged_chapter", name, detail=refused.issue.detail)
    except Undecodable as error:
        return ReadIssue("rejected", "damaged_chapter", name, error.value, error.threshold, error.reason)


def _decoded(data: bytes) -> str:
    """Text in the encoding of the XML declaration, else in the detected one."""
    declared = _DECLARED.match(data[:200])
    if declared:
        try:
            return data.decode(declared[1].decode())
        except (LookupError, UnicodeDecodeError):
            return decode(data).text
    return decode(data).text
