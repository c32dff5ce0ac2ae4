"""Reader of files of any format: detects the format, decompresses, and calls the module of the format.

in:  a name and a binary file
out: ExtractedText and ReadIssue of that module; or one issue with the detected format, if no module reads it

gzip, zstd, bzip2 and xz are decompressed, one level deep: streamed formats read the decompressed stream, the others a
temporary file.
"""

import importlib
import io
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from groundup.core.errors import GroundupError
from groundup.core.os_errors import explain_os_errors
from groundup.text.ingest.decode import CONTROL_BYTES, byte_order_mark, is_binary
from groundup.text.ingest.formats.decompress import DecompressedFile, compression
from groundup.text.ingest.formats.detect import (
    WARC,
    Format,
    detect_format,
    format_by_magic,
    strip_compression,
)
from groundup.text.ingest.safe_open import Unreadable
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions, Row

Item = ExtractedText | Row | ReadIssue
ROW_FORMATS = "JSON lines, JSON arrays and Parquet, each also compressed,"
_HEAD = 1 << 16
_IN_MEMORY = 8 << 20
_NOT_THE_FILES = (GroundupError, Unreadable, OSError, ImportError)
"""Errors of the machine or the installation rather than of the file's content."""


def read(
    path: str, file: BinaryIO, options: ReadOptions, skip: int = 0
) -> Iterator[ExtractedText | ReadIssue]:
    """Texts and issues of one file. Raises I/O errors of the file itself.

    skip: number of leading records (positions with an item) that are skipped without decoding.
    """
    for item in _read(path, file, options, skip, "read"):
        assert not isinstance(item, Row)
        yield item


def read_rows(path: str, file: BinaryIO, options: ReadOptions) -> Iterator[Row | ReadIssue]:
    """Rows and issues of one file of JSON lines, a JSON array or Parquet. Raises I/O errors of the file itself."""
    for item in _read(path, file, options, 0, "rows"):
        assert not isinstance(item, ExtractedText)
        yield item


def _read(path: str, file: BinaryIO, options: ReadOptions, skip: int, function: str) -> Iterator[Item]:
    """Items of the format's `function`: read or rows."""
    head = file.read(_HEAD)
    if not head:
        yield ReadIssue("rejected", "empty")
    elif kind := compression(head) or _damaged_compression(path, head):
        yield from _read_compressed(path, file, kind, options, skip, function)
    else:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - _HEAD))
        detection = detect_format(path, head, file.read(_HEAD), "", options)
        file.seek(0)
        yield from detection.issues
        if detection.format and detection.format.in_memory and size > options.max_file_bytes:
            yield ReadIssue("rejected", "too_large", value=size, threshold=options.max_file_bytes)
        elif detection.format:
            yield from _read_format(detection.format, path, file, options, skip, function)


def _damaged_compression(path: str, head: bytes) -> str:
    """Compression by file name, for binary content without known magic: the first member is damaged; else ""."""
    kind = strip_compression(path.lower())[1]
    controls = len(head) - len(head.translate(None, CONTROL_BYTES))
    binary = is_binary(controls, len(head)) and not byte_order_mark(head)
    return kind if binary and not format_by_magic(head, b"", None) else ""


def _read_format(
    format_: Format, path: str, file: BinaryIO, options: ReadOptions, skip: int, function: str
) -> Iterator[Item]:
    """Items of the format's module; an unexpected parser error becomes an issue of this file."""
    module = importlib.import_module(f"groundup.text.ingest.formats.{format_.name}")
    items = getattr(module, function, None)
    if items is None:
        yield ReadIssue("rejected", "no_rows", detail=f"{format_.name}: {ROW_FORMATS} are read by rows")
        return
    any_text = skip > 0
    try:
        for item in items(path, file, options, skip):
            any_text |= not isinstance(item, ReadIssue)
            yield item
    except _NOT_THE_FILES:
        raise
    except MemoryError:
        yield ReadIssue("changed" if any_text else "rejected", "out_of_memory", detail=format_.name)
    except Exception as error:
        detail = f"{format_.name}: {type(error).__name__}: {error}"[:300]
        yield ReadIssue("changed" if any_text else "rejected", "reader_failed", detail=detail)


def _read_compressed(
    path: str, file: BinaryIO, kind: str, options: ReadOptions, skip: int, function: str
) -> Iterator[Item]:
    content = DecompressedFile(file, kind, options.max_expansion)
    with io.BufferedReader(content, _HEAD) as stream:
        head = stream.peek(_HEAD)
        detection = detect_format(path, head, b"", kind, options)
        if not head and detection.format is not WARC:  # the WARC reader has its own way past damage
            yield from content.issues or [ReadIssue("rejected", "empty")]
            return
        yield from detection.issues
        if not detection.format:
            return
        if detection.format is WARC and kind == "gzip":
            file.seek(0)
            yield from _read_format(WARC, path, file, options, skip, function)
        elif detection.format.stream:
            any_text = skip > 0
            for item in _read_format(detection.format, path, stream, options, skip, function):
                any_text |= not isinstance(item, ReadIssue)
                yield item
            yield from map(_partial, content.issues) if any_text else content.issues
        else:
            yield from _read_spooled(detection.format, path, stream, content, options, skip, function)


def _read_spooled(
    format_: Format,
    path: str,
    stream: BinaryIO,
    content: DecompressedFile,
    options: ReadOptions,
    skip: int,
    function: str,
) -> Iterator[Item]:
    """Items of a format that needs seeking: the content goes into a temporary file if it is large."""
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
        limit = options.max_file_bytes if format_.in_memory else content.limit
        while chunk := stream.read(min(_HEAD, limit + 1 - spool.tell())):
            with explain_os_errors(f"unpacking {path!r}", Path(tempfile.gettempdir())):
                spool.write(chunk)
        if content.too_large:
            yield content.issues[-1]
        elif spool.tell() > limit:
            yield ReadIssue("rejected", "too_large", value=spool.tell(), threshold=limit, detail=content.kind)
        else:
            yield from map(_partial, content.issues)
            spool.seek(0)
            yield from _read_format(format_, path, cast(BinaryIO, spool), options, skip, function)


def _partial(issue: ReadIssue) -> ReadIssue:
    """The issue of a file from which other content was read."""
    return replace(issue, outcome="changed", detail=f"{issue.detail}; everything before it is kept")
