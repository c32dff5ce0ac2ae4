"""A file of any format -> the texts in it, read by the module for its format.

in:  a name and a binary file
out: Text and Note, from that module; or a note that says what the file is, if nothing here reads it

What the bytes show counts, then the name: wrong extensions are common. gzip, zstd, bzip2 and xz are unpacked on the
way, once: formats of lines read from the stream, the others from a temporary file.
"""

import importlib
import io
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from groundup.core.errors import DataError, GroundupError
from groundup.text.batch import CODE
from groundup.text.ingest.formats.decompress import DecompressedFile, compression
from groundup.text.ingest.safe_open import Unreadable
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions

_HEAD = 1 << 16
_IN_MEMORY = 8 << 20
_LONG_LINE = 4096


@dataclass(frozen=True, slots=True)
class Format:
    """A format, and the names of files that have it.

    whole: it is held in memory whole, and may have no more than `file_bytes`. stream: it is read from beginning to
    end without going back. shown: every file of this format shows it in its bytes, whatever its name says.
    """

    name: str
    suffixes: tuple[str, ...]
    in_memory: bool = False
    stream: bool = False
    has_magic: bool = False


_PLAIN = Format("plain", (".txt", ".text", ".md", ".markdown", ".rst", ".adoc", ".org", ".tex", ".log"))
_JSONL = Format("jsonl", (".jsonl", ".ndjson", ".jsonlines"), stream=True)
_HTML = Format("html", (".html", ".htm", ".xhtml", ".shtml"), in_memory=True)
_PDF = Format("pdf", (".pdf",), in_memory=True, has_magic=True)
_WARC = Format("warc", (".warc", ".arc", ".wet", ".wat"), stream=True)
_FORMATS = {
    known.name: known
    for known in (
        _PLAIN,
        _JSONL,
        _HTML,
        _PDF,
        _WARC,
        Format("csv", (".csv", ".tsv"), stream=True),
        Format("parquet", (".parquet", ".pq"), has_magic=True),
        Format("docx", (".docx", ".docm"), in_memory=True, has_magic=True),
        Format("epub", (".epub",), in_memory=True, has_magic=True),
        Format("mail", (".eml", ".mbox")),
    )
}
_PACKED_SUFFIXES = {
    ".gz": "gzip",
    ".gzip": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".bz2": "bzip2",
    ".xz": "xz",
}

_MAGIC = (
    (re.compile(rb"PAR1"), "parquet"),
    (re.compile(rb"%PDF-"), "pdf"),
    (re.compile(rb"WARC/[01]\.\d+\r?\n|filedesc:\S"), "warc"),
)
_MBOX = re.compile(rb"From \S.{0,99}?\d\d:\d\d.{0,40}\d{4}.{0,20}\n[\w-]+:")
_MAIL = re.compile(
    rb"(Return-Path|Received|Delivered-To|Message-ID|X-[\w-]+): .*(\n.*)*?\n(From|Date): ", re.I
)
_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]{0,200}\?>\s*)?(<!--((?!-->).)*-->\s*)*<(!doctype\s+html|html)[\s>]",
    re.I | re.S,
)
_IN_ZIP = (
    (b"word/document.xml", "docx"),
    (b"mimetypeapplication/epub+zip", "epub"),
    (b"META-INF/container.xml", "epub"),
    (b"xl/workbook.xml", "xlsx"),
    (b"ppt/presentation.xml", "pptx"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_UNREAD = (
    (b"ARROW1", "arrow"),
    (b"FEA1", "feather"),
    (b"Obj\x01", "avro"),
    (b"ORC", "orc"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x1f\x9d", "compress"),
    (b"SQLite format 3\x00", "sqlite"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"\x93NUMPY", "numpy"),
    (b"GGUF", "gguf"),
    (b"{\\rtf", "rtf"),
    (b"%!PS", "postscript"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF8", "gif"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"RIFF", "riff"),
    (b"ID3", "mp3"),
    (b"OggS", "ogg"),
    (b"fLaC", "flac"),
    (b"\x7fELF", "elf"),
)


def read(
    path: str, file: BinaryIO, options: ReadOptions, skip: int = 0
) -> Iterator[ExtractedText | ReadIssue]:
    """The texts in one file; what isn't plain from it is a note. Raises what the file itself raises.

    skip: records to pass over, of those at which an item was given before.
    """
    head = file.read(_HEAD)
    if not head:
        yield ReadIssue("aside", "empty")
    elif kind := compression(head):
        yield from _read_compressed(path, file, kind, options, skip)
    else:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - _HEAD))
        detection = detect_format(path, head, file.read(_HEAD), "", options)
        file.seek(0)
        yield from detection.issues
        if detection.format and detection.format.in_memory and size > options.max_file_bytes:
            yield ReadIssue("aside", "too_large", value=size, threshold=options.max_file_bytes)
        elif detection.format:
            yield from _read_format(detection.format, path, file, options, skip)


@dataclass(frozen=True, slots=True)
class Detection:
    """The format of a file, None if nothing here reads it; and what the ledger should know about that."""

    format: Format | None
    issues: tuple[ReadIssue, ...] = ()


def detect_format(path: str, head: bytes, tail: bytes, packed: str, options: ReadOptions) -> Detection:
    """The format of a file that begins with `head`; `packed` is how what lies on the disk is packed, if so."""
    name, said_packed = _strip_compression(path.lower())
    suffix = re.search(r"\.\w+$", name)
    by_name = next((known for known in _FORMATS.values() if suffix and suffix[0] in known.suffixes), None)
    if by_name is None and CODE.search(name):
        by_name = _PLAIN
    by_magic = _by_magic(head, tail, by_name)
    if by_magic and by_magic not in _FORMATS:
        return Detection(None, (ReadIssue("aside", "unknown_format", detail=by_magic),))
    format_ = _FORMATS[by_magic] if by_magic else _PLAIN if by_name is None or by_name.has_magic else by_name
    if not by_magic and (by_name is None or _may_be_other(by_name, name)):
        format_ = _by_content(head) or format_
    if name.endswith(".json") and format_ is _PLAIN and _json_line(head, options.fields["text"]):
        return Detection(_JSONL)
    if by_name in (None, format_) and (said_packed == packed or not by_name):
        return Detection(format_)
    actual = f"{format_.name} in {packed}" if packed else format_.name
    return Detection(format_, (ReadIssue("changed", "wrong_extension", detail=f"this is {actual}"),))


def _strip_compression(name: str) -> tuple[str, str]:
    for suffix, kind in _PACKED_SUFFIXES.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix), kind
    return name, ""


def _by_magic(head: bytes, tail: bytes, by_name: Format | None) -> str:
    """What the bytes show, "" if nothing: the name of a format, or of something that nothing here reads."""
    name = next((name for magic, name in _MAGIC if magic.match(head)), "")
    if name:
        return name
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        named = by_name.name if by_name and by_name.name in ("docx", "epub") else "zip"
        return next((name for mark, name in _IN_ZIP if mark in head or mark in tail), named)
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith(_OLE):  # old Office, or new Office encrypted: then the reader says so
        return by_name.name if by_name and by_name.name == "docx" else "ole2"
    if by_name is _PDF and b"%PDF-" in head[:1024]:  # as readers of PDF allow it
        return "pdf"
    return compression(head) or next((name for magic, name in _UNREAD if head.startswith(magic)), "")


def _may_be_other(by_name: Format, name: str) -> bool:
    """Whether a name says so little of a text that it may be a page or mail."""
    return by_name.has_magic or by_name.name == "csv" or name.endswith((".txt", ".text"))


def _by_content(head: bytes) -> Format | None:
    """Texts that show what they are, in a file whose name doesn't say it."""
    if _PAGE.match(head):
        return _HTML
    return _FORMATS["mail"] if _MBOX.match(head) or _MAIL.match(head[:8192]) else None


def _json_line(head: bytes, field: str) -> bool:
    """Whether a file that is called JSON is JSON lines, as many published corpora are."""
    line = head.lstrip().split(b"\n", 1)[0].rstrip()
    whole = line.endswith(b"}") or len(line) > _LONG_LINE
    return line.startswith(b"{") and whole and field.split(".")[-1].encode() in line


def _read_format(
    format_: Format, path: str, file: BinaryIO, options: ReadOptions, skip: int
) -> Iterator[ExtractedText | ReadIssue]:
    module = importlib.import_module(f"groundup.text.ingest.formats.{format_.name}")
    any_text = skip > 0
    try:
        for item in module.read(path, file, options, skip):
            any_text |= isinstance(item, ExtractedText)
            yield item
    except (
        GroundupError,
        Unreadable,
        OSError,
        MemoryError,
        ImportError,
    ):  # not the file's fault, or not ours to judge
        raise
    except (
        Exception
    ) as error:  # one file that a parser stumbles over doesn't end the reading of a million others
        detail = f"{format_.name}: {type(error).__name__}: {error}"[:300]
        yield ReadIssue("changed" if any_text else "aside", "reader_failed", detail=detail)


def _read_compressed(
    path: str, file: BinaryIO, kind: str, options: ReadOptions, skip: int
) -> Iterator[ExtractedText | ReadIssue]:
    unpacked = DecompressedFile(file, kind, options.max_expansion)
    with io.BufferedReader(unpacked, _HEAD) as stream:
        head = stream.peek(_HEAD)
        detection = detect_format(path, head, b"", kind, options)
        if not head and detection.format is not _WARC:  # of which the rest may be whole
            yield unpacked.problem or ReadIssue("aside", "empty")
            return
        yield from detection.issues
        if not detection.format:
            return
        if detection.format is _WARC and kind == "gzip":  # it has its own way with members
            file.seek(0)
            yield from _read_format(_WARC, path, file, options, skip)
        elif detection.format.stream:
            any_text = skip > 0
            for item in _read_format(detection.format, path, stream, options, skip):
                any_text |= isinstance(item, ExtractedText)
                yield item
            if unpacked.problem:
                yield _partial(unpacked.problem) if any_text else unpacked.problem
        else:
            yield from _read_spooled(detection.format, path, stream, unpacked, options, skip)


def _read_spooled(
    format_: Format, path: str, stream: BinaryIO, unpacked: DecompressedFile, options: ReadOptions, skip: int
) -> Iterator[ExtractedText | ReadIssue]:
    """For formats that go back and forth: the whole content, in a temporary file if it is large."""
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
        limit = options.max_file_bytes if format_.in_memory else unpacked.limit
        while chunk := stream.read(min(_HEAD, limit + 1 - spool.tell())):
            try:
                spool.write(chunk)
            except OSError as error:  # no fault of the file
                folder = tempfile.gettempdir()
                raise DataError(f"can't unpack {path!r} in {folder}: {error.strerror}. Set TMPDIR.") from None
        size, problem = spool.tell(), unpacked.problem
        if problem and problem.reason == "expands_too_much":
            yield problem
            return
        if size > limit:
            yield ReadIssue("aside", "too_large", value=size, threshold=limit, detail=unpacked.kind)
            return
        if problem:
            yield _partial(problem)
        spool.seek(0)
        yield from _read_format(format_, path, cast(BinaryIO, spool), options, skip)


def _partial(problem: ReadIssue) -> ReadIssue:
    detail = f"{problem.detail}; kept what came before"
    return ReadIssue("changed", problem.reason, "", problem.value, problem.threshold, detail)
