"""Detectors of personal data and secrets: one file per family, each with finders.

in:  a text
out: character ranges of personal data, by kind

A finder works in two passes. Its hints are cheap regular expressions without look-around that Arrow matches on a whole
batch and that hold for every text with a match. Only texts that pass the hints are searched, with expressions that
backtrack little (bounded or possessive repeats) and the validators of phonenumbers and python-stdnum. Finders get
texts whose wide spaces, dashes and digits are replaced by ASCII ones, one character for one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["api_key", "email", "iban", "credit_card", "national_id", "ip", "phone"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Overlapping matches get the kind that comes first here."""

Range = tuple[int, int]

SEPARATOR = r"[-./() ]"
SOME_DIGITS = rf"[0-9](?:{SEPARATOR}{{0,3}}[0-9]){{6}}"
"""Hint shared by the finders of numbers: seven digits with short separators."""

# A number next to more digits or letters is part of something else: a fraction, a name, a hash. The look-behind comes
# after the first character, so that `re` can scan for that character alone. Only ASCII letters count: scripts
# without spaces put numbers directly between words.
AFTER_FIRST = r"(?a:(?<![\w.].)(?<![\w.]-.)(?<!\d,.))"
AFTER_NUMBER = r"(?a:(?!\w|[.,]\d|-\w))"


@dataclass(frozen=True, slots=True)
class Finder:
    """Finder of one kind. Every text with a match satisfies all `hints` (RE2 syntax)."""

    kind: Kind
    hints: tuple[str, ...]
    find: Callable[[str], Iterable[Range]]


_DIGITS = "".join(chr(zero + digit) for zero in (0xFF10, 0x0660, 0x06F0, 0x0966) for digit in range(10))
"""Full-width, Arabic, Persian and Devanagari digits."""
_WIDTHS = dict(zip("\u00a0\u2007\u2009\u202f\u3000\u2010\u2011\u2012\u2013\u2212－．＋（）＠" + _DIGITS,
                   "     -----" "-.+()@" + "0123456789" * 4, strict=True))  # fmt: skip


def to_ascii_widths(text: str) -> str:
    """The text with wide spaces, dashes, digits and a few signs as ASCII; its length is unchanged."""
    if not text.isascii():
        for wide, ascii_form in _WIDTHS.items():
            text = text.replace(wide, ascii_form)
    return text


def replace(text: str, findings: Iterable[tuple[int, int, str]]) -> str:
    """The text with each range replaced by its placeholder; ranges are sorted and disjoint."""
    pieces, at = [], 0
    for start, end, placeholder in findings:
        pieces += [text[at:start], placeholder]
        at = end
    return "".join([*pieces, text[at:]])


def is_word_char(text: str, at: int) -> bool:
    """Whether the character at this index is an ASCII letter or digit."""
    return at >= 0 and text[at : at + 1].isascii() and text[at : at + 1].isalnum()


def context_around(text: str, start: int, end: int, before: int = 40, after: int = 20) -> tuple[str, str]:
    """Text before and after a range on the same line, for rules that need a context word."""
    left = text[max(0, start - before) : start].rpartition("\n")[2]
    return left, text[end : end + after].partition("\n")[0]
