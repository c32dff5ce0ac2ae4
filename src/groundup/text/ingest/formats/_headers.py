"""The lines at the head of a record or of an HTTP message -> their names and values.

in:  the bytes of a header, with whatever line ends and folding
out: a mapping from names in lower case to values; for ARC records the names that WARC has for the same

WARC is ISO 28500; ARC is its forerunner, https://archive.org/web/researcher/ArcFileFormat.php.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_FOLDED = re.compile(r"\r?\n[ \t]+")
_WARC_LINE = rb"WARC/\d\.\d+[ \t]*\r?\n"
_ARC_LINE = rb"([a-zA-Z][\w+.-]{0,20}:[^\n]{0,3000}) \S{1,99} \d{8,17} ([^\n]{0,300}?) ?(\d+)\r?\n"
"""URL, address, date, type, (in version 2 what nobody needs here,) length. URLs with spaces do occur."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How records look. `start` matches the beginning of one, `next` the same after a line; `end` ends a header.

    `parse` reads a header, None if it is none; `warc-type` and `content-length` are the names that matter.
    """

    start: re.Pattern[bytes]
    next: re.Pattern[bytes]
    end: re.Pattern[bytes]
    parse: Callable[[bytes], Mapping[str, str] | None]


def fields(header: bytes) -> dict[str, str]:
    """`Name: value` lines behind the first line; of a name that comes again the first value counts."""
    try:
        lines = header.decode()
    except UnicodeDecodeError:
        lines = header.decode("latin-1")
    if "\n " in lines or "\n\t" in lines:
        lines = _FOLDED.sub(" ", lines)
    found: dict[str, str] = {}
    for line in lines.split("\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip().lower(), value.strip())
    return found


def _warc(header: bytes) -> Mapping[str, str] | None:
    found = fields(header)
    return found if "warc-type" in found else None


def _arc(header: bytes) -> Mapping[str, str] | None:
    match = ARC.start.fullmatch(header)
    if not match:
        return None
    url, kind, length = (part.decode("utf-8", "replace") for part in match.groups())
    web = url[:5].lower().startswith("http")
    return {
        "warc-type": "warcinfo" if url.startswith("filedesc:") else "response",
        "warc-target-uri": url,
        "content-type": "application/http" if web else kind.split(" ")[0],
        "content-length": length,
    }


WARC = Dialect(re.compile(_WARC_LINE), re.compile(rb"\n" + _WARC_LINE), re.compile(rb"\r?\n\r?\n"), _warc)
ARC = Dialect(re.compile(_ARC_LINE), re.compile(rb"\n" + _ARC_LINE), re.compile(rb"\n"), _arc)
