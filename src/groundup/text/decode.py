"""Bytes -> text, and what had to be done to get it.

in:  the bytes of one file
out: Decoded text with LF line ends, or Undecodable with a reason

UTF-8 is taken as it is. UTF-16 and UTF-32 need their byte order mark. Otherwise, if most of the non-ASCII
bytes do form UTF-8, the stray ones are replaced by U+FFFD; if not, the text is read as Windows-1252, which
contains what people call Latin-1. Other 8-bit encodings would come out as accented noise and are refused.
"""

import codecs
import re
from dataclasses import dataclass

MAX_CONTROL_SHARE = 0.01
"""Control characters per character above which a file is binary."""
MAX_WESTERN_HIGH_SHARE = 0.25
"""Non-ASCII bytes per byte above which an 8-bit text isn't Western (French has about 0.05, Russian 0.7)."""

_MARKS = (  # UTF-32's little-endian mark begins with UTF-16's, so it comes first.
    (codecs.BOM_UTF32_LE, "utf_32"),
    (codecs.BOM_UTF32_BE, "utf_32"),
    (codecs.BOM_UTF16_LE, "utf_16"),
    (codecs.BOM_UTF16_BE, "utf_16"),
)
_CONTROL = re.compile("[\x00-\x07\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]+")
_HIGH_BYTES = bytes(range(128, 256))
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACED = "\ufffd"


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


def decode(data: bytes) -> Decoded:
    """Text of `data`, its byte order mark gone and its line ends LF. Raises Undecodable."""
    marked = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    if marked is not None:
        found = Decoded(data.decode(marked, "replace"), f"decoded_as_{marked}")
    elif b"\x00" in data:
        raise Undecodable("binary", data.count(b"\x00"), 0)
    else:
        found = _decode_unmarked(data.removeprefix(codecs.BOM_UTF8))
    text = found.text
    controls = sum(map(len, _CONTROL.findall(text)))
    if controls > MAX_CONTROL_SHARE * len(text):
        raise Undecodable("binary", controls / len(text), MAX_CONTROL_SHARE)
    return Decoded(unix_lines(text), found.reason, found.value)


def unix_lines(text: str) -> str:
    """CRLF and CR become LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def without_surrogates(text: str) -> tuple[str, int]:
    """Lone surrogates (JSON can spell them, UTF-8 can't) become U+FFFD; also how many there were."""
    return _SURROGATE.subn(_REPLACED, text)


def _decode_unmarked(data: bytes) -> Decoded:
    try:
        return Decoded(data.decode("utf-8"))
    except UnicodeDecodeError:
        pass
    text = data.decode("utf-8", "replace")
    bad = text.count(_REPLACED) - data.count(_REPLACED.encode())
    ascii_bytes = len(data.translate(None, _HIGH_BYTES))
    if len(text) - ascii_bytes - bad > bad:
        return Decoded(text, "invalid_utf8_replaced", bad)
    high_share = 1 - ascii_bytes / len(data)
    if high_share > MAX_WESTERN_HIGH_SHARE:
        raise Undecodable("unknown_encoding", high_share, MAX_WESTERN_HIGH_SHARE)
    try:
        return Decoded(data.decode("cp1252"), "decoded_as_cp1252")
    except UnicodeDecodeError:
        return Decoded(data.decode("latin-1"), "decoded_as_latin1")
