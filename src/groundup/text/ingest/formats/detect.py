"""Detection of a file's format.

in:  the file's name and its first and last bytes
out: Detection: the format, and the issues for the rejects log

The bytes come first, then the name: wrong extensions are common.
"""

import re
from dataclasses import dataclass

from groundup.text.batch import CODE
from groundup.text.ingest.decode import byte_order_mark
from groundup.text.ingest.formats.decompress import compression
from groundup.text.ingest.types import ReadIssue, ReadOptions

_LONG_LINE = 4096
_CONVERSATIONS = ("messages", "conversations", "instruction", "question", "prompt")


@dataclass(frozen=True, slots=True)
class Format:
    """A format and its file name suffixes.

    in_memory: files are read into memory whole, up to `max_file_bytes`. stream: files are read from beginning to end
    without seeking. has_magic: every file of the format is recognised by its bytes.
    """

    name: str
    suffixes: tuple[str, ...]
    in_memory: bool = False
    stream: bool = False
    has_magic: bool = False


PLAIN = Format("plain", (".txt", ".text", ".md", ".markdown", ".rst", ".adoc", ".org", ".tex", ".log"))
_JSONL = Format("jsonl", (".jsonl", ".ndjson", ".jsonlines"), stream=True)
_HTML = Format("html", (".html", ".htm", ".xhtml", ".shtml"), in_memory=True)
_PDF = Format("pdf", (".pdf",), in_memory=True, has_magic=True)
_JSON_ARRAY = Format("json_array", (), stream=True)
WARC = Format("warc", (".warc", ".arc", ".wet", ".wat"), stream=True)
_FORMATS = {
    format_.name: format_
    for format_ in (
        PLAIN,
        _JSONL,
        _JSON_ARRAY,
        _HTML,
        _PDF,
        WARC,
        Format("csv", (".csv", ".tsv"), stream=True),
        Format("parquet", (".parquet", ".pq"), has_magic=True),
        Format("docx", (".docx", ".docm"), in_memory=True, has_magic=True),
        Format("epub", (".epub",), in_memory=True, has_magic=True),
        Format("mail", (".eml", ".mbox")),
    )
}
COMPRESSED_SUFFIXES = {
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


@dataclass(frozen=True, slots=True)
class Detection:
    """The format of a file, None if no reader supports it; and issues for the rejects log."""

    format: Format | None
    issues: tuple[ReadIssue, ...] = ()


def detect_format(path: str, head: bytes, tail: bytes, packed: str, options: ReadOptions) -> Detection:
    """The format of a file that begins with `head`; `packed` is the compression of the file on disk, if any."""
    name, named_packed = strip_compression(path.lower())
    suffix = re.search(r"\.\w+$", name)
    by_name = next(
        (format_ for format_ in _FORMATS.values() if suffix and suffix[0] in format_.suffixes), None
    )
    if by_name is None and CODE.search(name):
        by_name = PLAIN
    by_magic = format_by_magic(head, tail, by_name)
    if by_magic and by_magic not in _FORMATS:
        return Detection(None, (ReadIssue("rejected", "unknown_format", detail=by_magic),))
    format_ = _FORMATS[by_magic] if by_magic else PLAIN if by_name is None or by_name.has_magic else by_name
    if not by_magic and (by_name is None or _may_be_other(by_name, name)):
        format_ = _by_content(head) or format_
    rows = _json_rows(head, name, options.fields["text"]) if format_ in (PLAIN, _JSONL) else None
    if rows:
        return Detection(rows)
    if by_name in (None, format_) and (named_packed == packed or not by_name):
        return Detection(format_)
    actual = f"{format_.name} in {packed}" if packed else format_.name
    return Detection(format_, (ReadIssue("changed", "wrong_extension", detail=f"this is {actual}"),))


def strip_compression(name: str) -> tuple[str, str]:
    for suffix, kind in COMPRESSED_SUFFIXES.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix), kind
    return name, ""


def format_by_magic(head: bytes, tail: bytes, by_name: Format | None) -> str:
    """Name of the format recognised by its magic bytes, also of unsupported ones; "" if there is none."""
    name = next((name for magic, name in _MAGIC if magic.match(head)), "")
    if name:
        return name
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        named = by_name.name if by_name and by_name.name in ("docx", "epub") else "zip"
        return next((name for mark, name in _IN_ZIP if mark in head or mark in tail), named)
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith(_OLE):  # old Office, or new Office encrypted, which the reader detects
        return by_name.name if by_name and by_name.name == "docx" else "ole2"
    if by_name is _PDF and b"%PDF-" in head[:1024]:  # as readers of PDF allow it
        return "pdf"
    return compression(head) or next((name for magic, name in _UNREAD if head.startswith(magic)), "")


def _may_be_other(by_name: Format, name: str) -> bool:
    """Whether a text file of this name may also be HTML or mail."""
    return by_name.has_magic or by_name.name == "csv" or name.endswith((".txt", ".text"))


def _by_content(head: bytes) -> Format | None:
    """HTML or mail, recognised by its first lines."""
    if _PAGE.match(head):
        return _HTML
    return _FORMATS["mail"] if _MBOX.match(head) or _MAIL.match(head[:8192]) else None


def _json_rows(head: bytes, name: str, field: str) -> Format | None:
    """How the rows of a JSON file are written: lines, or an array or indented objects; None for other files."""
    is_json = name.endswith((".json", *_JSONL.suffixes))
    if not is_json and "." in name.rpartition("/")[2]:
        return None
    encoding = byte_order_mark(head)
    head = head.decode(encoding, "ignore").encode() if encoding else head
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:_LONG_LINE]
    if re.match(rb"\[\s*\{", start):
        return _JSON_ARRAY
    if name.endswith(_JSONL.suffixes):
        return _JSON_ARRAY if re.match(rb"\{[ \t]*\r?\n", start) else None
    return _JSONL if is_json and _json_line(head, field) else None


def _json_line(head: bytes, field: str) -> bool:
    """Whether a .json file is JSON lines, as many published corpora are."""
    line = head.lstrip().split(b"\n", 1)[0].rstrip()
    whole = line.endswith(b"}") or len(line) > _LONG_LINE
    names = (field.split(".")[-1], *(_CONVERSATIONS if field == "text" else ()))
    return line.startswith(b"{") and whole and any(b'"%b"' % name.encode() in line for name in names)
