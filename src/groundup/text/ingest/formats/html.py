"""HTML page -> its main content as one document, by extract.py.

in:  HTML or XHTML, read into memory
out: the main text without navigation and boilerplate; a page without main text is rejected
"""

from collections.abc import Iterator
from typing import BinaryIO

from groundup.text.ingest.decode import Undecodable
from groundup.text.ingest.extract import main_text
from groundup.text.ingest.formats.plain import document
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions


def read(
    path: str, file: BinaryIO, options: ReadOptions, skip: int = 0
) -> Iterator[ExtractedText | ReadIssue]:
    """The whole file as one document; `skip` is not used."""
    data = file.read(options.max_file_bytes + 1)
    if len(data) > options.max_file_bytes:
        yield ReadIssue("rejected", "too_large", value=len(data), threshold=options.max_file_bytes)
    else:
        yield from read_page(data, "", options)


def read_page(
    data: bytes, position: str, options: ReadOptions, declared: str = ""
) -> Iterator[ExtractedText | ReadIssue]:
    """The document of a page, or the reason why it has none.

    declared: charset from the HTTP header; may be wrong.
    """
    try:
        extracted = main_text(data, options.extractor, declared)
    except Undecodable as error:
        yield ReadIssue("rejected", error.reason, position, error.value, error.threshold)
        return
    items = list(document(extracted.text, position, options))
    if extracted.reason and isinstance(items[-1], ExtractedText):
        yield ReadIssue("changed", extracted.reason, position, extracted.value, extracted.threshold)
    yield from items
