"""Main-text extraction from HTML: articles without menus, adverts and comments.

in:  bytes of an HTML page, and the character set declared by the server, if any
out: Extracted text (paragraphs, lists, tables and <pre> keep their lines), or NoMainText with a reason

resiliparse is the fast extractor (Bevendorff et al. 2018, https://doi.org/10.1007/978-3-319-76941-7_83),
trafilatura the accurate one (Barbaresi 2021, https://aclanthology.org/2021.acl-demo.15).
`benchmarks/extraction.py` measures both, and the effect of each setting below.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

from groundup.text.ingest.decode import Decoded, Undecodable, decode, without_surrogates
from groundup.text.ingest.html_bounds import MAX_PAGE_TAGS, bounded, too_many_tags
from groundup.text.ingest.types import Extractor

MOST_NESTED = 255
"""Maximum element nesting. libxml2 stops there, and resiliparse's time grows with its square."""
MOST_TAGS = 40_000
"""Maximum tags of a page for trafilatura: its time can grow with their square (6 s at this number)."""

SHORT = 250
"""Characters below which resiliparse is retried leniently, and then trafilatura."""
WORTH_ASKING = 1000
"""Minimum characters of the page's whole text for a retry."""
MOST_TAGS_FOR_ASKING = 3000
"""Maximum tags for a retry: here trafilatura takes 0.1 s, fifty times resiliparse."""

_SKIPPED = ("footer", "[class*=caption]", "td.linenos", "td.gutter")
"""Elements that resiliparse keeps but are not text: notices, captions, line numbers."""
_LISTS_NEAR_THE_TOP = "body > ul, body > * > ul, body > * > * > ul"
_NESTED_TOO_DEEP = " > ".join("*" * (MOST_NESTED + 2))  # the root's own place is no nesting
_META_CHARSET = re.compile(rb"""<meta\b[^>]*?charset\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_META_WITHIN = 4096
_SERVER_DEFAULTS = ("", "iso-8859-1", "latin1", "windows-1252", "us-ascii")
_LINK, _TAG = re.compile(r"<a\b.*?</a>", re.DOTALL), re.compile(r"<[^>]*>")
_XML_DECLARATION = re.compile(r"\s*<\?xml[^>]*>")
_ALONE = re.compile(">\\s*(?:[\u0800-\udfff\uf900-\uffef]|&#?\\w+;)(?=\\s*<)")
_KEEPER = "\ufdd0"


class NoMainText(Undecodable):
    """The page has no extractable text."""


@dataclass(frozen=True, slots=True)
class Extracted:
    """Main text of a page; `reason` and its numbers describe special handling, "" if there was none."""

    text: str
    reason: str = ""
    value: float | None = None
    threshold: float | None = None


def main_text(html: bytes, extractor: Extractor = "resiliparse", declared_charset: str = "") -> Extracted:
    """Main text of a page. Raises NoMainText, or Undecodable for bytes that are not text.

    declared_charset: from the HTTP header. If it is only a server default, the page's <meta> takes precedence; either
    is used only where the bytes are valid in it (see decode.py).
    """
    decoded = _page(html, declared_charset)
    page, reason, value = bounded(decoded.text), decoded.reason, decoded.value
    tree, tags = _tree(page), page.count("<")
    if extractor == "trafilatura" and tags <= MOST_TAGS:
        extracted = Extracted(_by_trafilatura(page), reason, value)
    elif extractor == "trafilatura":
        extracted = Extracted(_by_resiliparse(tree), "extracted_by_resiliparse", tags, MOST_TAGS)
    else:
        extracted = Extracted(_by_resiliparse(tree), reason, value)
        if len(extracted.text) < SHORT and tags <= MOST_TAGS_FOR_ASKING and _shows_more(tree):
            careful = _by_trafilatura(page)
            if len(careful) > 2 * len(extracted.text):
                extracted = Extracted(careful, "extracted_by_trafilatura", len(extracted.text), SHORT)
    text = without_surrogates(extracted.text)[0]
    if not any(map(str.isalnum, text)):
        raise NoMainText("no_main_text")
    return replace(extracted, text=text)


def _page(html: bytes, declared: str) -> Decoded:
    """The decoded page; the <meta> charset is used where the server declares only its default."""
    if declared.strip().lower() in _SERVER_DEFAULTS:
        meta = _META_CHARSET.search(html, 0, _META_WITHIN)
        declared = meta[1].decode("ascii", "replace") if meta else declared
    return decode(html, declared)


def _tree(page: str) -> Any:
    """Page parsed by resiliparse. Raises NoMainText for one nested too deeply for any extractor."""
    from resiliparse.parse.html import HTMLTree

    if tags := too_many_tags(page):
        raise NoMainText("too_many_tags", tags, MAX_PAGE_TAGS)

    # resiliparse takes a character that is alone in its element for an icon, if UTF-8 needs three bytes for it:
    # a dash between two links, half of a Chinese name. A noncharacter beside it keeps it.
    tree = HTMLTree.parse(_ALONE.sub(rf"\g<0>{_KEEPER}", page))
    if tree.document and tree.document.query_selector(_NESTED_TOO_DEEP):
        raise NoMainText("nested_too_deep", None, MOST_NESTED)
    return tree


def _by_resiliparse(tree: Any) -> str:
    _keep_lists(tree)
    text = _plain(tree, main_content=True, comments=False, post_meta=False, skip_elements=_SKIPPED)
    if len(text) >= SHORT:
        return text
    # A page whose root has the class `comment` or `post-meta` is removed entirely.
    lenient = _plain(tree, main_content=True, skip_elements=_SKIPPED)
    return lenient if len(lenient) > 2 * len(text) else text


def _shows_more(tree: Any) -> bool:
    return len(_plain(tree)) >= WORTH_ASKING


def _plain(tree: Any, **options: Any) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    text: str = extract_plain_text(tree, preserve_formatting=True, alt_texts=False, links=False, **options)
    return text.replace(_KEEPER, "").strip()


def _keep_lists(tree: Any) -> None:
    """Moves text lists near the root deeper, since resiliparse takes every list there for a menu."""
    for items in tree.document.query_selector_all(_LISTS_NEAR_THE_TOP):
        html = items.html
        linked = sum(len(_TAG.sub("", link)) for link in _LINK.findall(html))
        if linked * 2 < len(_TAG.sub("", html)):
            deeper = outer = tree.create_element("div")
            for _ in range(2):
                deeper = deeper.append_child(tree.create_element("div"))
            items.parent.replace_child(outer, items)
            deeper.append_child(items)


def _by_trafilatura(page: str) -> str:
    from trafilatura import extract

    # favor_precision is what FineWeb used, and better on both benchmarks.
    text = extract(
        _XML_DECLARATION.sub("", page, count=1),  # of an encoding that isn't that of a str any more
        include_comments=False,
        include_tables=True,
        favor_precision=True,
    )
    return (text or "").strip()
