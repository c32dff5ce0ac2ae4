"""A web page -> its main text as one document, by extract.py.

in:  HTML or XHTML, held whole
out: the text without what surrounds it; a page without any goes aside
"""

from collections.abc import Iterator
from typing import BinaryIO

from groundup.text.ingest.decode import Undecodable
from groundup.text.ingest.extract import main_text
from groundup.text.ingest.formats.plain import document
from groundup.text.ingest.types import ExtractedText, Options, ReadIssue


def read(path: str, file: BinaryIO, options: Options, skip: int = 0) -> Iterator[ExtractedText | ReadIssue]:
    """The whole file as one document. `skip` has no meaning here."""
    data = file.read(options.file_bytes + 1)
    if len(data) > options.file_bytes:
        yield ReadIssue("aside", "too_large", value=len(data), threshold=options.file_bytes)
    else:
        yield from page(data, "", options)


def page(
    data: bytes, position: str, options: Options, declared: str = ""
) -> Iterator[ExtractedText | ReadIssue]:
    """A page as a document, or the note why there is none.

    declared: the charset that a server said; needn't be right.
    """
    try:
        found = main_text(data, options.extractor, declared)
    except Undecodable as error:
        yield ReadIssue("aside", error.reason, position, error.value, error.threshold)
        return
    items = list(document(found.text, position, options))
    if found.reason and isinstance(items[-1], ExtractedText):
        yield ReadIssue("changed", found.reason, position, found.value, found.threshold)
    yield from items
