"""Header lines of WARC and ARC records and of HTTP messages -> names and values.

in:  header bytes, with any line ends and folding
out: lower-case names -> values; ARC fields are given their WARC names

WARC is ISO 28500; ARC is its forerunner, https://archive.org/web/researcher/ArcFileFormat.php.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_FOLDED = re.compile(r"\r?\n[ \t]+")
_WARC_LINE = rb"WARC/\d\.\d+[ \t]*\r?\n"
_ARC_LINE = rb"([a-zA-Z][\w+.-]{0,20}:[^\n]{0,3000}) \S{1,99} \d{8,17} ([^\n]{0,300}?) ?(\d+)\r?\n"
"""URL, address, date, type, (in version 2 other fields,) length. URLs can contain spaces."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """Record syntax of WARC or ARC.

    `start` matches the first line of a record, `next` the same after a line feed, `end` the end of a header. `parse`
    returns the header's fields (`warc-type` and `content-length` among them), or None for an invalid header.
    """

    start: re.Pattern[bytes]
    next: re.Pattern[bytes]
    end: re.Pattern[bytes]
    parse: Callable[[bytes], Mapping[str, str] | None]


def parse_headers(header: bytes) -> dict[str, str]:
    """Fields of the `Name: value` lines after the first line; the first value of a repeated name is kept."""
    try:
        lines = header.decode()
    except UnicodeDecodeError:
        lines = header.decode("latin-1")
    if "\n " in lines or "\n\t" in lines:
        lines = _FOLDED.sub(" ", lines)
    headers: dict[str, str] = {}
    for line in lines.split("\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    return headers


def _warc(header: bytes) -> Mapping[str, str] | None:
    headers = parse_headers(header)
    return headers if "warc-type" in headers else None


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
