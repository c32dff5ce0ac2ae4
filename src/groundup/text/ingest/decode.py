"""Bytes -> text, and what had to be done to get it.

in:  the bytes of one file, and the encoding that somebody declared for them, if any
out: Decoded text with LF line ends, or Undecodable with a reason

In this order: a byte order mark; UTF-8 if the bytes are; UTF-8 with U+FFFD for stray bytes if most of the others
form it; then what the bytes look like to uchardet, against what was declared. Headers lie, mostly by naming the
server's default: so a script that was recognised (Cyrillic, Chinese ...) beats a declaration, and a declaration
beats the guess which of the Latin alphabets it is. What is left is read as Windows-1252, if few bytes aren't ASCII.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_CONTROL_SHARE = 0.01
"""Control characters per character above which a file is binary."""
MAX_FEW_CONTROLS, MAX_FEW_SHARE = 4, 0.1
"""Control characters that a text of any length may have, if they are no more than this share of it."""
MAX_BAD_SHARE = 0.02
"""Bytes that an encoding can't read, per byte that isn't ASCII, above which it is the wrong one."""
MAX_WESTERN_HIGH_SHARE = 0.25
"""Non-ASCII bytes per byte above which an 8-bit text isn't Western (French has about 0.05, Russian 0.7)."""
ENOUGH_HIGH_BYTES = 16
"""Non-ASCII bytes from which one Latin alphabet is told from another, and from a declared other script."""

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
"""What people write is often of the larger set; encodings that uchardet knows and nobody uses are Western."""
_DEFAULT = "cp1252"
_TOLD = {"cp1250", "iso8859-2", "cp1254"}
_LATIN = _TOLD | {"cp1252", "cp1257", "cp1258"}
_LETTERS = (range(0x80, 0xA6), range(0xC0, 0x100))
_CONTROL = re.compile("[\x00-\x07\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]+")
_HIGH_BYTES = bytes(range(128, 256))
_C1 = re.compile(b"\xc2[\x80-\x84\x86-\x9f]")
CONTROL_BYTES = bytes(code for code in [*range(0x20), 0x7F] if code not in b"\b\t\n\v\f\r\x1b")
"""What texts don't have, but for white space, and what terminals understand."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACED = "\ufffd"
_UNASSIGNED = re.compile("[\x80-\x84\x86-\x9f\ufffd\ue000-\uf8ff]")
_SAMPLE = 1 << 20


class Undecodable(Exception):
    """These bytes are no text. `reason` names what they are instead, the numbers say how it was told."""

    def __init__(self, reason: str, value: float | None = None, threshold: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.value, self.threshold = reason, value, threshold


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text, and the `reason` it isn't simply the bytes as UTF-8, if so; `value` counts replacements."""

    text: str
    reason: str = ""
    value: float | None = None
    encoding: str = "utf-8"


def decode(data: bytes, declared: str = "") -> Decoded:
    """Text of `data`, its byte order mark gone and its line ends LF. Raises Undecodable.

    declared: the encoding that a header or the document itself names; needn't be right, or one at all.
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
    """Control characters in UTF-8; counted in its bytes, which takes a tenth of the time that letters would."""
    return len(data) - len(data.translate(None, CONTROL_BYTES)) + len(_C1.findall(data))


def byte_order_mark(data: bytes) -> str:
    """The encoding that a byte order mark names, "" without one (or with that of UTF-8)."""
    return next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "")


def as_utf8(chunks: Iterator[bytes], marked: str) -> Iterator[bytes]:
    """Chunks of a stream in UTF-16 or UTF-32 (`marked` by its byte order mark) as UTF-8, any others as they are."""
    return (text.encode() for text in codecs.iterdecode(chunks, marked, "replace")) if marked else chunks


def unix_lines(text: str) -> str:
    """CRLF and CR become LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def without_nuls(text: str) -> tuple[str, int]:
    """A few NULs in a text are damage, and cut it short in many a program; also how many there were."""
    nuls = text.count("\x00")
    return (text.replace("\x00", ""), nuls) if nuls else (text, 0)


def without_surrogates(text: str) -> tuple[str, int]:
    """Lone surrogates (JSON can spell them, UTF-8 can't) become U+FFFD; also how many there were."""
    return (text, 0) if text.isascii() else _SURROGATE.subn(_REPLACED, text)


def _refuse_binary(data: bytes) -> None:
    """Control bytes are no part of any letter in the encodings that come without a mark. Raises Undecodable."""
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
    """Encodings to try, the likeliest first; "" stands for none."""
    seen = _detect(data)
    sure = high >= ENOUGH_HIGH_BYTES and (declared not in _LATIN or (declared == _DEFAULT and seen in _TOLD))
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
    """Python's name for the encoding, or for what contains it; "" if there is no such encoding of text."""
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
    """The text in this encoding, unless too much of it would make none."""
    if not encoding:
        return None
    text = data.decode(encoding, "replace")
    bad = len(_UNASSIGNED.findall(text))
    high = len(data) - len(data.translate(None, _HIGH_BYTES))
    if bad > MAX_BAD_SHARE * high and encoding != "iso2022_jp":
        return None
    return Decoded(text, f"decoded_as_{encoding.replace('-', '_')}", bad or None, encoding)
