"""Limits on what an HTML parser is given: its memory grows with tags and attributes, its time with options.

in:  a page as text
out: the same page with the costly parts made harmless, and whether it has too many tags to be parsed
"""

import re

MAX_PAGE_TAGS = 250_000
"""Tags of a page that is parsed, of both kinds: each takes some 300 bytes."""
MAX_OPTIONS = 1000
"""Options of all <select> elements; the parser's time grows with their square."""

_OPTION = re.compile(r"</?(?:option|optgroup|select)\b[^<>]*>?", re.IGNORECASE)
_LONG_TAG = re.compile(r"<(/?[A-Za-z][\w-]{0,30})[^<>]{65536,}")
_TAG = re.compile(r"<[^<>]*>")


def too_many_tags(page: str) -> int:
    """The number of tags, if it is above MAX_PAGE_TAGS; else 0."""
    tags = page.count("<")
    return tags if tags > MAX_PAGE_TAGS else 0


def bounded(page: str) -> str:
    """The page without the attributes of tags that are longer than 64 KB, and without forms of many options."""
    if len(page) > 1 << 16:
        page = _LONG_TAG.sub(r"<\1", page)
    if page.count("<option") + page.count("<OPTION") > MAX_OPTIONS:
        page = _OPTION.sub(" ", page)
    return page


def without_tags(page: str) -> str:
    """The page's text with tags as spaces, for a page with too many tags to be parsed."""
    return _TAG.sub(" ", page)
