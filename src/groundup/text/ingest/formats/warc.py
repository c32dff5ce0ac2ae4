"""Web archive (WARC, WET, ARC) -> one document per page, read as a stream.

in:  records, each its own gzip member, all in one, or uncompressed
out: the text of every successful response, at its record number and with its URL; every other record has an issue
     with the reason

Record bodies are read by the module of their format: html.py, plain.py, pdf.py, docx.py or epub.py. The format is
detected from the bytes first, then from the media type of the response.
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
from groundup.text.ingest.formats.html import read_page
from groundup.text.ingest.formats.plain import document
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions

_CARRIERS = ("response", "resource", "conversion")
"""Record types that contain documents; other types are reported as the reason."""
_OTHERS = ("warcinfo", "request", "metadata", "revisit", "continuation")
_ADDRESSES = ("http:", "https:", "ftp:", "ftps:", "file:")
"""Other URI schemes (`dns:`, `metadata:`, `urn:X-wpull:log`) are records about the crawl itself."""
_NAMES = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "application/pdf": ".pdf",
    "application/epub+zip": ".epub",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
}
"""File suffix of each media type."""
_READ = ("html", "plain", "pdf", "docx", "epub")
"""Formats with one document per file; tables and mailboxes in web archives are rejected."""
_NOT_THE_RECORDS = (GroundupError, OSError, ImportError)
_EDGE = 1 << 16


def read(
    path: str, file: BinaryIO, options: ReadOptions, skip: int = 0
) -> Iterator[ExtractedText | ReadIssue]:
    """Documents of the records after the first `skip`, at positions "1", "2" ..."""
    record = None
    for record in records(file, options):
        if record.number > skip:
            yield from _at_record(record, _items_or_failure(record, options))
    if not record:
        yield ReadIssue("rejected", "empty")


def _at_record(record: Record, items: list[ExtractedText | ReadIssue]) -> Iterator[ExtractedText | ReadIssue]:
    """Items at the record's number, issues with its URL; loss of a part of the record is a change."""
    position, uri = str(record.number), _uri(record)
    for item in items:
        if isinstance(item, ExtractedText):
            yield replace(item, position=position, path=uri)
        else:
            outcome = "changed" if item.position else item.outcome
            detail = "; ".join(filter(None, (item.position, item.detail, uri)))
            yield replace(item, outcome=outcome, position=position, detail=detail[:1000])


def _items_or_failure(record: Record, options: ReadOptions) -> list[ExtractedText | ReadIssue]:
    """Items of a record; an unexpected parser error becomes an issue, so that the other records are read."""
    try:
        return list(_items(record, options))
    except _NOT_THE_RECORDS:
        raise
    except MemoryError:
        return [ReadIssue("rejected", "out_of_memory")]
    except Exception as error:
        return [ReadIssue("rejected", "reader_failed", detail=f"{type(error).__name__}: {error}"[:300])]


def _items(record: Record, options: ReadOptions) -> Iterator[ExtractedText | ReadIssue]:
    """The document of a record, or the reason why it has none."""
    kind, uri = record.headers.get("warc-type", "").lower(), _uri(record).lower()
    if record.reason:
        yield ReadIssue("rejected", record.reason, "", record.value, record.threshold, record.detail)
    elif kind not in _CARRIERS:
        yield (
            ReadIssue("rejected", kind)
            if kind in _OTHERS
            else ReadIssue("rejected", "unknown_record_type", detail=kind)
        )
    elif uri and not uri.startswith(_ADDRESSES):
        yield ReadIssue("rejected", "crawler_record")
    else:
        yield from _read_payload(record, options)


def _read_payload(record: Record, options: ReadOptions) -> Iterator[ExtractedText | ReadIssue]:
    content_type = record.headers.get("content-type", "")
    over_http = content_type.lower().startswith("application/http") or record.body.startswith(b"HTTP/")
    http = response(record.body, options) if over_http else payload(content_type, record.body)
    if http.status and not 200 <= http.status < 300:
        yield ReadIssue("rejected", "http_status", value=http.status)
    elif http.issue and http.issue.outcome == "rejected":
        yield http.issue
    elif not http.body.strip():
        yield ReadIssue("rejected", "empty")
    else:
        yield from [http.issue] if http.issue else []
        if "warc-truncated" in record.headers:
            yield ReadIssue("changed", "truncated_by_crawler", detail=record.headers["warc-truncated"])
        yield from _document(http, options)


def _document(http: Payload, options: ReadOptions) -> Iterator[ExtractedText | ReadIssue]:
    """Items of a payload by the module of its format; scripts, images and tables are rejected."""
    name = _NAMES.get(http.media_type, "")
    detection = detect.detect_format(name, http.body[:_EDGE], http.body[-_EDGE:], "", options)
    kind = detection.format.name if detection.format else detection.issues[0].detail
    if kind not in _READ or (kind == "plain" and not name):
        yield ReadIssue("rejected", "not_a_document", detail=f"{http.media_type or 'no media type'}, {kind}")
        return
    for note in detection.issues:
        yield replace(note, reason="wrong_media_type")
    if kind == "html":
        yield from read_page(http.body, "", options, http.charset)
    elif kind == "plain":
        yield from document(http.body, "", options, http.charset)
    else:
        module = importlib.import_module(f"groundup.text.ingest.formats.{kind}")
        yield from module.read("", io.BytesIO(http.body), options)


def _uri(record: Record) -> str:
    return record.headers.get("warc-target-uri", "").strip("<>")
