"""Private data in text: one file per family, each giving finders.

in:  a text
out: where it has something private: character ranges, by kind

A finder looks twice. Its hints are cheap: expressions without look-around that Arrow matches on a whole batch, and
that hold for every text with such a thing. Only the texts that pass are searched, by an expression that can't
backtrack far (bounded or possessive repeats) and by the validators of phonenumbers and python-stdnum. Finders see
texts narrowed: spaces, dashes and digits of all widths as those of ASCII, every character in its place.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["api_key", "email", "iban", "credit_card", "national_id", "ip", "phone"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""The first wins where two kinds claim the same characters."""

Range = tuple[int, int]

SEPARATOR = r"[-./() ]"
SOME_DIGITS = rf"[0-9](?:{SEPARATOR}{{0,3}}[0-9]){{6}}"
"""The hint that finders of numbers share: seven digits with little between them."""

# A number with more digits or letters around it is part of something else: a fraction, a name, a hash. The test of
# what stands before comes after the first character, so that `re` can look for that character alone.
# Letters are those of ASCII: in scripts without spaces a number stands right between words.
AFTER_FIRST = r"(?a:(?<![\w.].)(?<![\w.]-.)(?<!\d,.))"
AFTER_NUMBER = r"(?a:(?!\w|[.,]\d|-\w))"


@dataclass(frozen=True, slots=True)
class Finder:
    """Finds things of one kind. Every text that has one matches all `hints` (RE2's syntax)."""

    kind: Kind
    hints: tuple[str, ...]
    find: Callable[[str], Iterable[Range]]


_WIDTHS = dict(zip("\u00a0\u2007\u2009\u202f\u3000\u2010\u2011\u2012\u2013\u2212－．＋（）＠０１２３４５６７８９",
                   "     -----" "-.+()@0123456789", strict=True))  # fmt: skip


def narrow(text: str) -> str:
    """The text with spaces, dashes, digits and a few marks in ASCII; as many characters as before."""
    if not text.isascii():
        for wide, ascii_form in _WIDTHS.items():
            text = text.replace(wide, ascii_form)
    return text


def replace(text: str, findings: Iterable[tuple[int, int, str]]) -> str:
    """The text with each range, in order and apart from each other, replaced by its placeholder."""
    pieces, at = [], 0
    for start, end, placeholder in findings:
        pieces += [text[at:start], placeholder]
        at = end
    return "".join([*pieces, text[at:]])


def goes_on(text: str, at: int) -> bool:
    """Whether a letter or digit of ASCII stands there."""
    return at >= 0 and text[at : at + 1].isascii() and text[at : at + 1].isalnum()


def words_near(text: str, start: int, end: int, before: int = 40, after: int = 20) -> tuple[str, str]:
    """What stands before and after a range on its line, for rules that need a word of context."""
    left = text[max(0, start - before) : start].rpartition("\n")[2]
    return left, text[end : end + after].partition("\n")[0]
