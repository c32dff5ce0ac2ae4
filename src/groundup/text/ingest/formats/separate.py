"""Separators -> where plain text is divided into documents.

in:  `separator`: a string that is a line by itself, "blank-lines", "headings", or ""
out: an expression for what divides documents, in text or in bytes
"""

import re
from functools import lru_cache

BLANK_LINES, HEADINGS = "blank-lines", "headings"
_BLANK = r"\n(?:[ \t]*\n)+"
_HEADING = (
    r"^(?=#{1,6}[ \t]+\S|(?:CHAPTER|Chapter|PART|Part|BOOK|Book|ACT|Act|SCENE|Scene)[ \t]+(?:[IVXLC]+|[0-9]+)\b"
    r"|[^\n]{1,100}\n(?:={3,}|-{3,})[ \t]*$)"
)
"""The beginning of a line: Markdown headings of both kinds, and `CHAPTER I` of plain books."""


@lru_cache(16)
def pattern(separator: str) -> re.Pattern[str]:
    """What divides documents. It belongs to none of them; a heading belongs to the document it begins."""
    if separator == BLANK_LINES:
        return re.compile(_BLANK)
    if separator == HEADINGS:
        return re.compile(_HEADING, re.MULTILINE)
    if "\n" in separator:
        return re.compile(re.escape(separator))
    return re.compile(rf"^[ \t]*{re.escape(separator.strip())}[ \t]*(?:\n|\Z)", re.MULTILINE)


def divide(text: str, separator: str) -> list[str]:
    """The documents of a text that aren't empty; the text itself if nothing divides it."""
    if not separator or not (separator.strip() in text or separator in (BLANK_LINES, HEADINGS)):
        return [text]
    parts = pattern(separator).split(text)
    return [text] if len(parts) == 1 else [part.strip("\n") for part in parts if part.strip()] or [""]


def last_end(data: bytes, separator: str) -> int:
    """Where the last separator of UTF-8 bytes ends (where it begins, for headings); 0 if there is none."""
    if not separator:
        return 0
    if separator == BLANK_LINES:
        return data.rfind(b"\n\n", 1) + 2 if b"\n\n" in data[1:] else 0
    if separator == HEADINGS:
        return max((match.start() for match in _bytes_pattern().finditer(data)), default=0)
    if "\n" in separator:
        ends = [separator.encode()]
    else:
        ends = [f"\n{separator.strip()}{end}".encode() for end in ("\n", "\r\n")]
    return max((data.rfind(end) + len(end) for end in ends if end in data), default=0)


@lru_cache(1)
def _bytes_pattern() -> re.Pattern[bytes]:
    return re.compile(_HEADING.encode(), re.MULTILINE)
