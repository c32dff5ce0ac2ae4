"""A web archive (WARC, its forerunner ARC, WET) -> a document per page, read as a stream.

in:  records, packed one by one, in one, or not at all
out: the text of every page that a server answered with, at the number of its record and under its address;
     every other record is a note that says why it gave none

What a record holds is read by the module for that format: pages by html.py, the rest by plain.py, pdf.py, docx.py
and epub.py. The bytes count, then the media type that the server named.
"""

import importlib
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from groundup.core.errors import GroundupError
from groundup.text.ingest.formats import detect
from groundup.text.ingest.formats._http import Payload, payload, response
from groundup.text.ingest.formats._records import Record, records
from groundup.text.ingest.formats.html import page
from groundup.text.ingest.formats.plain import document
from groundup.text.ingest.types import ExtractedText, Options, ReadIssue

_CARRIERS = ("response", "resource", "conversion")
"""Types of records that carry documents; others are a reason by themselves."""
_OTHERS = ("warcinfo", "request", "metadata", "revisit", "continuation")
_ADDRESSES = ("http:", "https:", "ftp:", "ftps:", "file:")
"""What else has an address (`dns:`, `metadata:`, `urn:X-wpull:log`) is the crawler's own, about its work."""
_NAMES = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "application/pdf": ".pdf",
    "application/epub+zip": ".epub",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
}
"""What a file of a media type would be called."""
_READ = ("html", "plain", "pdf", "docx", "epub")
"""Formats of one document each; tables and mail folders aren't what somebody wrote for the web."""
_NOT_THE_RECORDS = (GroundupError, OSError, MemoryError, ImportError)
_EDGE = 1 << 16


def read(path: str, file: BinaryIO, options: Options, skip: int = 0) -> Iterator[ExtractedText | ReadIssue]:
    """What the records behind the first `skip` hold, in positions "1", "2" ..."""
    record = None
    for record in records(file, options):
        if record.number > skip:
            yield from _placed(record, _items_or_failure(record, options))
    if not record:
        yield ReadIssue("aside", "empty")


def _placed(record: Record, items: list[ExtractedText | ReadIssue]) -> Iterator[ExtractedText | ReadIssue]:
    """Everything about a record stands at its number, notes with its address; a part that is lost changes it."""
    position, uri = str(record.number), _uri(record)
    for item in items:
        if isinstance(item, ExtractedText):
            yield replace(item, position=position, path=uri)
        else:
            fate = "changed" if item.position else item.fate
            detail = "; ".join(filter(None, (item.position, item.detail, uri)))
            yield replace(item, fate=fate, position=position, detail=detail[:1000])


def _items_or_failure(record: Record, options: Options) -> list[ExtractedText | ReadIssue]:
    """One record that a parser stumbles over doesn't end the reading of the others."""
    try:
        return list(_items(record, options))
    except _NOT_THE_RECORDS:
        raise
    except Exception as error:
        return [ReadIssue("aside", "reader_failed", detail=f"{type(error).__name__}: {error}"[:300])]


def _items(record: Record, options: Options) -> Iterator[ExtractedText | ReadIssue]:
    """The document in a record, or why there is none."""
    kind, uri = record.headers.get("warc-type", "").lower(), _uri(record).lower()
    if record.reason:
        yield ReadIssue("aside", record.reason, "", record.value, record.threshold, record.detail)
    elif kind not in _CARRIERS:
        yield (
            ReadIssue("aside", kind)
            if kind in _OTHERS
            else ReadIssue("aside", "unknown_record_type", detail=kind)
        )
    elif uri and not uri.startswith(_ADDRESSES):
        yield ReadIssue("aside", "crawler_record")
    else:
        yield from _carried(record, options)


def _carried(record: Record, options: Options) -> Iterator[ExtractedText | ReadIssue]:
    said = record.headers.get("content-type", "")
    over_http = said.lower().startswith("application/http") or record.body.startswith(b"HTTP/")
    found = response(record.body, options) if over_http else payload(said, record.body)
    if found.status and not 200 <= found.status < 300:
        yield ReadIssue("aside", "http_status", value=found.status)
    elif found.note and found.note.fate == "aside":
        yield found.note
    elif not found.body.strip():
        yield ReadIssue("aside", "empty")
    else:
        yield from [found.note] if found.note else []
        if "warc-truncated" in record.headers:
            yield ReadIssue("changed", "truncated_by_crawler", detail=record.headers["warc-truncated"])
        yield from _document(found, options)


def _document(found: Payload, options: Options) -> Iterator[ExtractedText | ReadIssue]:
    """What the bytes show it to be, read by its module. Scripts, pictures and tables go aside by what they are."""
    name = _NAMES.get(found.kind, "")
    seen = detect.recognise(name, found.body[:_EDGE], found.body[-_EDGE:], "", options)
    kind = seen.format.name if seen.format else seen.notes[0].detail
    if kind not in _READ or (kind == "plain" and not name):
        yield ReadIssue("aside", "not_a_document", detail=f"{found.kind or 'no media type'}, {kind}")
        return
    for note in seen.notes:
        yield replace(note, reason="wrong_media_type")
    if kind == "html":
        yield from page(found.body, "", options, found.charset)
    elif kind == "plain":
        yield from document(found.body, "", options, found.charset)
    else:
        module = importlib.import_module(f"groundup.text.ingest.formats.{kind}")
        yield from module.read("", io.BytesIO(found.body), options)


def _uri(record: Record) -> str:
    return record.headers.get("warc-target-uri", "").strip("<>")
