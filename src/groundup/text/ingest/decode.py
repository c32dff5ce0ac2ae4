"""Character decoding: bytes -> text.

in:  bytes of one file, and the declared encoding, if any
out: Decoded text with LF line ends, or Undecodable with a reason

In this order: byte order mark; valid UTF-8; mostly valid UTF-8, with U+FFFD for invalid bytes; then uchardet's
detection against the declared encoding. Headers are often a server default, so a detected script (Cyrillic,
Chinese ...) overrides a declaration, and a declaration overrides the detected Latin alphabet. The rest is read as
Windows-1252, if few bytes are non-ASCII.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

MAX_CONTROL_SHARE = 0.01
"""Share of control characters above which a file is binary."""
MAX_FEW_CONTROLS, MAX_FEW_SHARE = 4, 0.1
"""Control characters that a text of any length may have, if they are no more than this share of it."""
MAX_BAD_SHARE = 0.02
"""Share of undecodable bytes among non-ASCII bytes above which an encoding is wrong."""
MAX_WESTERN_HIGH_SHARE = 0.25
"""Share of non-ASCII bytes above which an 8-bit text isn't Western (French about 0.05, Russian 0.7)."""
ENOUGH_HIGH_BYTES = 16
"""Non-ASCII bytes needed to distinguish Latin alphabets, or to override a declared script."""

_MARKS = (  # UTF-32's little-endian mark begins with UTF-16's, so it comes first.
    (codecs.BOM_UTF32_LE, "utf_32"),
    (codecs.BOM_UTF32_BE, "utf_32"),
    (codecs.BOM_UTF16_LE, "utf_16"),
    (codecs.BOM_UTF16_BE, "utf_16"),
)
_SUPERSETS = {
    "ascii": "cp1252", "latin_1": "cp1252", "iso8859-1": "cp1252", "iso8859-3": "cp1252", "iso8859-4": "cp1252",
    "iso8859-10": "cp1252", "iso8859-14": "cp1252", "iso8859-15": "cp1252", "iso8859-16": "cp1252", "cp865": "cp1252",
    "iso8859-9": "cp1254", "iso8859-13": "cp1257", "iso8859-8": "cp1255", "iso8859-11": "cp874", "tis-620": "cp874",
    "koi8-r": "koi8-u", "shift_jis": "cp932", "euc_kr": "cp949", "gb2312": "gb18030", "gbk": "gb18030",
    "big5": "big5hkscs",
}  # fmt: skip
"""Encodings replaced by their common superset; encodings that are detected but never used become Western."""
_DEFAULT = "cp1252"
_DETECTED_LATIN = {"cp1250", "iso8859-2", "cp1254"}
_LATIN = _DETECTED_LATIN | {"cp1252", "cp1257", "cp1258"}
_LETTERS = (range(0x80, 0xA6), range(0xC0, 0x100))
_CONTROL = re.compile("[\x00-\x07\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]+")
_HIGH_BYTES = bytes(range(128, 256))
_C1 = re.compile(b"\xc2[\x80-\x84\x86-\x9f]")
CONTROL_BYTES = bytes(code for code in [*range(0x20), 0x7F] if code not in b"\b\t\n\v\f\r\x1b")
"""Control bytes other than white space and terminal codes."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACED = "\ufffd"
_UNASSIGNED = re.compile("[\x80-\x84\x86-\x9f\ufffd\ue000-\uf8ff]")
_SAMPLE = 1 << 20


class Undecodable(Exception):
    """The bytes are not text. `reason` names what they are; value and threshold are the numbers compared."""

    def __init__(self, reason: str, value: float | None = None, threshold: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.value, self.threshold = reason, value, threshold


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text, and the `reason` why it isn't plain UTF-8, if so; `value` counts replacements."""

    text: str
    reason: str = ""
    value: float | None = None
    encoding: str = "utf-8"


def decode(data: bytes, declared: str = "") -> Decoded:
    """Text of `data` without byte order mark, with LF line ends. Raises Undecodable.

    declared: encoding named by a header or the document; may be wrong or unknown.
    """
    marked = byte_order_mark(data)
    if marked:
        decoded = Decoded(data.decode(marked, "replace"), f"decoded_as_{marked}", None, marked)
    else:
        _refuse_binary(data)
        decoded = _decode_unmarked(data.removeprefix(codecs.BOM_UTF8), declared)
    text = decoded.text
    controls = _controls(data) if decoded.encoding == "utf-8" else sum(map(len, _CONTROL.findall(text)))
    if is_binary(controls, len(text)):
        raise Undecodable("binary", controls / len(text), MAX_CONTROL_SHARE)
    text, nuls = without_nuls(unix_lines(text))
    if nuls and not decoded.reason:
        return Decoded(text, "nul_bytes_removed", nuls, decoded.encoding)
    return Decoded(text, decoded.reason, decoded.value, decoded.encoding)


def is_binary(controls: int, size: int) -> bool:
    """Whether so many control characters make content of this size binary; a few in a short text don't."""
    few = max(1.0, min(MAX_FEW_CONTROLS, MAX_FEW_SHARE * size))
    return controls > max(few, MAX_CONTROL_SHARE * size)


def _controls(data: bytes) -> int:
    """Control characters in UTF-8, counted on bytes, which is ten times faster than on characters."""
    return len(data) - len(data.translate(None, CONTROL_BYTES)) + len(_C1.findall(data))


def byte_order_mark(data: bytes) -> str:
    """Encoding named by a byte order mark, "" without one (or with that of UTF-8)."""
    return next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "")


def as_utf8(chunks: Iterator[bytes], marked: str) -> Iterator[bytes]:
    """Chunks of a UTF-16 or UTF-32 stream (`marked` by its byte order mark) as UTF-8, others unchanged."""
    return (text.encode() for text in codecs.iterdecode(chunks, marked, "replace")) if marked else chunks


def utf8_chunks(chunks: Iterator[bytes]) -> tuple[str, Iterator[bytes]]:
    """(encoding that a byte order mark declares, "" for UTF-8; the stream in UTF-8 without that mark)."""
    head = next(chunks, b"")
    encoding = byte_order_mark(head)
    return encoding, as_utf8(chain([head.removeprefix(codecs.BOM_UTF8)], chunks), encoding)


def unix_lines(text: str) -> str:
    """Converts CRLF and CR to LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def without_nuls(text: str) -> tuple[str, int]:
    """Text without NUL characters, and their number."""
    nuls = text.count("\x00")
    return (text.replace("\x00", ""), nuls) if nuls else (text, 0)


def without_surrogates(text: str) -> tuple[str, int]:
    """Text with lone surrogates (possible in JSON, not in UTF-8) replaced by U+FFFD, and their number."""
    return (text, 0) if text.isascii() else _SURROGATE.subn(_REPLACED, text)


def _refuse_binary(data: bytes) -> None:
    """Raises Undecodable if too many bytes are control bytes, which no unmarked encoding uses in letters."""
    controls = len(data) - len(data.translate(None, CONTROL_BYTES))
    if is_binary(controls, len(data)):
        raise Undecodable("binary", controls / len(data), MAX_CONTROL_SHARE)


def _decode_unmarked(data: bytes, declared: str) -> Decoded:
    if b"\x1b$" in data and data.isascii():  # nothing but ISO-2022 puts Japanese into ASCII bytes
        return _try(data, "iso2022_jp") or Decoded(data.decode("ascii"))
    try:
        return Decoded(data.decode("utf-8"))
    except UnicodeDecodeError:
        pass
    text = data.decode("utf-8", "replace")
    bad = text.count(_REPLACED) - data.count(_REPLACED.encode())
    high = len(data) - len(data.translate(None, _HIGH_BYTES))
    if len(text) - (len(data) - high) - bad > bad:
        return Decoded(text, "invalid_utf8_replaced", bad)
    for encoding in _candidates(data, _python_name(declared), high):
        decoded = _try(data, encoding)
        if decoded:
            return decoded
    if high > MAX_WESTERN_HIGH_SHARE * len(data):
        raise Undecodable("unknown_encoding", high / len(data), MAX_WESTERN_HIGH_SHARE)
    return _try(data, _DEFAULT) or Decoded(data.decode("latin-1"), "decoded_as_latin1", None, "latin-1")


def _candidates(data: bytes, declared: str, high: int) -> list[str]:
    """Encodings to try, most likely first; "" stands for none."""
    seen = _detect(data)
    sure = high >= ENOUGH_HIGH_BYTES and (
        declared not in _LATIN or (declared == _DEFAULT and seen in _DETECTED_LATIN)
    )
    if seen and (seen not in _LATIN or sure or not declared):
        return [seen, declared]
    return [declared, seen]


def _detect(data: bytes) -> str:
    from resiliparse.parse.encoding import detect_encoding

    detected = _python_name(detect_encoding(data, max_len=_SAMPLE, html5_compatible=False) or "")
    if detected == "cp852":  # its letters are at 0x80 to 0xA5, Windows' and ISO's from 0xC0 on
        dos, windows = (len(data.translate(None, bytes(letters))) for letters in _LETTERS)
        return detected if dos < windows else ""
    return detected


def _python_name(encoding: str) -> str:
    """Python's name of the encoding or its superset; "" if it isn't a text encoding."""
    from resiliparse.parse.encoding import map_encoding_to_html5

    name = encoding.strip().lower()
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError):
        name = map_encoding_to_html5(name, fallback_utf8=False) or "" if name.isascii() else ""
        if not name:
            return ""
        codec = codecs.lookup(name)
    # Of Python's own encodings some are no text (`hex`), run code of ours (`idna`), or were ruled out before.
    if not codec._is_text_encoding or codec.name.startswith(("utf", "idna", "punycode", "unicode", "raw")):
        return ""
    return _SUPERSETS.get(codec.name, codec.name)


def _try(data: bytes, encoding: str) -> Decoded | None:
    """Text in this encoding, or None if too much of it is undecodable."""
    if not encoding:
        return None
    text = data.decode(encoding, "replace")
    bad = len(_UNASSIGNED.findall(text))
    high = len(data) - len(data.translate(None, _HIGH_BYTES))
    if bad > MAX_BAD_SHARE * high and encoding != "iso2022_jp":
        return None
    return Decoded(text, f"decoded_as_{encoding.replace('-', '_')}", bad or None, encoding)
