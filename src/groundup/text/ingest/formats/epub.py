"""EPUB -> one document per book: its chapters in reading order, under its title.

in:  an electronic book (a zip of XHTML)
out: Markdown-like text; a chapter that can't be read is noted, the others are kept

A book is one document, not one per chapter, because what a later chapter says depends on the earlier ones, and
because how books are split into files has little to do with chapters; over-long documents are cut afterwards anyway.
"""

import posixpath
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import unquote

from groundup.text.ingest.decode import Undecodable, decode
from groundup.text.ingest.formats._zip_safety import Refused, member, open_zip, plain_text, xml
from groundup.text.ingest.types import ExtractedText, Options, ReadIssue

_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document")
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.-]+)""")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?=$|[-_])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Book:
    title: str
    language: str
    chapters: tuple[str, ...]


def read(path: str, file: BinaryIO, options: Options, skip: int = 0) -> Iterator[ExtractedText | ReadIssue]:
    """The whole book as one document. `skip` has no meaning here."""
    try:
        with open_zip(file, options, "epub") as archive:
            book = _book(archive)
            locked = _locked(archive)
            if locked.intersection(book.chapters):
                raise Refused(ReadIssue("aside", "encrypted", detail="digital rights management"))
            parts = [_chapter(archive, name) for name in book.chapters]
    except Refused as refused:
        yield refused.note
        return
    texts = [part for part in parts if isinstance(part, str) and part]
    failed = [part for part in parts if isinstance(part, ReadIssue)]
    if not texts:
        first = failed[0] if failed else ReadIssue("aside", "empty")
        yield ReadIssue("aside", first.reason, detail=first.detail)
        return
    yield from failed
    heading = [f"# {book.title}"] if book.title and not texts[0].lstrip("# ").startswith(book.title) else []
    yield ExtractedText("\n\n".join([*heading, *texts]), language=book.language)


def _book(archive: zipfile.ZipFile) -> _Book:
    """What the package file says: the title, the language, and the spine, which is the reading order."""
    container = xml(member(archive, _CONTAINER, "epub"), "epub")
    rootfile = next((e for e in container.iter("{*}rootfile") if e.get("full-path")), None)
    if rootfile is None:
        raise Refused(ReadIssue("aside", "damaged_epub", detail=f"{_CONTAINER} names no package file"))
    package_name = rootfile.get("full-path")
    package = xml(member(archive, package_name, "epub"), "epub")
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
        raise Refused(ReadIssue("aside", "damaged_epub", detail=f"{package_name} names no chapters"))
    language = _LANGUAGE.match(_said(package, "language"))
    said = language[0].lower() if language else ""
    return _Book(_said(package, "title"), "" if said == "und" else said, chapters)


def _said(package: Any, name: str) -> str:
    """The first `dc:name` of the metadata in one line, "" without one."""
    found = next(package.iter("{http://purl.org/dc/elements/1.1/}" + name), None)
    return "" if found is None else " ".join("".join(found.itertext()).split())


def _locked(archive: zipfile.ZipFile) -> set[str]:
    """The entries that are encrypted. Fonts often are in books that anybody may read, so the names matter."""
    if _ENCRYPTION not in archive.NameToInfo:
        return set()
    listed = xml(member(archive, _ENCRYPTION, "epub"), "epub")
    return {unquote(reference.get("URI", "")) for reference in listed.iter("{*}CipherReference")}


def _chapter(archive: zipfile.ZipFile, name: str) -> str | ReadIssue:
    try:
        data = member(archive, name, "epub")
        return plain_text(_decoded(data))
    except Refused as refused:
        return ReadIssue("aside", "damaged_chapter", name, detail=refused.note.detail)
    except Undecodable as error:
        return ReadIssue("aside", "damaged_chapter", name, error.value, error.threshold, error.reason)


def _decoded(data: bytes) -> str:
    """As the XML declaration says, if that works."""
    declared = _DECLARED.match(data[:200])
    if declared:
        try:
            return data.decode(declared[1].decode())
        except (LookupError, UnicodeDecodeError):
            return decode(data).text
    return decode(data).text
