"""Finders of payment cards (Luhn and the issuers' ranges, ISO/IEC 7812) and of IBANs (ISO 13616)."""

import re
from collections.abc import Iterator

from stdnum import iban, luhn, numdb

from groundup.text.pii import (
    AFTER_FIRST,
    AFTER_NUMBER,
    SOME_DIGITS,
    Finder,
    Range,
    context_around,
    is_word_char,
)

_ISSUERS = (
    ("4", (13, 16, 19)),  # Visa
    ("5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", (16,)),  # Mastercard
    ("3[47]", (15,)),  # American Express
    ("6011|64[4-9]|65", (16, 19)),  # Discover
    ("30[0-5]|3[689]", (14, 16)),  # Diners Club
    ("35", (16,)),  # JCB
    ("2131|1800", (15,)),
    ("62|81", (16, 17, 18, 19)),  # UnionPay
    ("5018|5020|5038|5[678]|6304|6390|6759|676[1-3]|0604", tuple(range(12, 20))),  # Maestro
    ("220[0-4]", (16, 17, 18, 19)),  # Mir
    ("60|508", (16,)),  # RuPay
)
_ISSUED = tuple((re.compile(first), lengths) for first, lengths in _ISSUERS)
_GROUPS = {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3), (4, 4, 4, 4, 2), (4, 4, 4, 4, 1), (4, 4, 4, 3),
           (4, 4, 5), (4, 4, 4, 1), (4, 4, 4), (8, 8), (6, 13)}  # fmt: skip
_USUAL = (12, 13, 14, 15, 16, 19)
"""Lengths of bare digit runs that need no context word."""
_WORD = re.compile(
    r"card|visa|maestro|master|amex|union ?pay|credit|debit|karte|carte|tarjeta|карт|卡|カード", re.IGNORECASE
)
_CARD = re.compile(rf"[0-68]{AFTER_FIRST}(?=(\d{{3}}(?:[-. ]?\d){{8,15}}+))", re.ASCII)
_IBAN = re.compile(r"[A-Za-z](?<![0-9A-Za-z].)(?=([A-Za-z] ?\d\d(?:[-. ]?[0-9A-Za-z]){11,30}+))")
_IBAN_LABEL = re.compile(r"\bIBAN\b[^\w\n]{0,8}$", re.IGNORECASE)
_SEPARATORS = re.compile(r"[-. ]")
_AFTER = re.compile(AFTER_NUMBER)


def cards() -> tuple[Finder, ...]:
    """Finder of payment card numbers, bare or in the usual groups."""
    return (Finder("credit_card", (SOME_DIGITS, r"[0-68][0-9]{3}(?:[-. ]?[0-9]){8}"), _find_cards),)


def ibans() -> tuple[Finder, ...]:
    """Finder of IBANs, bare or in groups."""
    hint = r"[A-Za-z]{2} ?[0-9]{2}[-. ]?[0-9A-Za-z]{4}[-. ]?[0-9A-Za-z]{4}"
    return (Finder("iban", (hint,), _find_ibans),)


def _find_cards(text: str) -> Iterator[Range]:
    for match in _CARD.finditer(text):
        run, start = match[0] + match[1], match.start()
        groups = list(re.finditer(r"\d+", run))
        for count in range(len(groups), 0, -1):
            end = groups[count - 1].end()
            lengths = tuple(len(group[0]) for group in groups[:count])
            if not 12 <= sum(lengths) <= 19 or not _AFTER.match(text, start + end):
                continue
            if _is_card(_SEPARATORS.sub("", run[:end]), lengths, text, start, start + end):
                yield start, start + end
                break


def _is_card(digits: str, lengths: tuple[int, ...], text: str, start: int, end: int) -> bool:
    grouped = lengths in _GROUPS and len(set(_SEPARATORS.findall(text, start, end))) == 1
    if len(lengths) > 1 and not grouped:
        return False
    if not any(len(digits) in allowed and first.match(digits) for first, allowed in _ISSUED):
        return False
    if not luhn.is_valid(digits) or len(set(digits)) == 1:
        return False
    return grouped or len(digits) in _USUAL or any(map(_WORD.search, context_around(text, start, end)))


def _find_ibans(text: str) -> Iterator[Range]:
    for match in _IBAN.finditer(text):
        run = match[0] + match[1]
        country = numdb.get("iban").info(run[:2].upper())[0][1]
        if not country:
            continue
        size = 4 + sum(map(int, re.findall(r"(\d+)!", country["bban"])))
        length = _length_of(run, size)
        end = match.start() + length
        if not length or is_word_char(text, end):
            continue
        # The national check digits inside the account number are not checked: some banks don't follow them.
        number = _SEPARATORS.sub("", run[:length]).upper()
        labelled = _IBAN_LABEL.search(context_around(text, match.start(), end)[0])
        if labelled or iban.is_valid(number, check_country=False):
            yield match.start(), end


def _length_of(run: str, size: int) -> int:
    """Length of the prefix of `run` with `size` letters and digits; 0 if it has fewer."""
    positions = [at for at, char in enumerate(run) if char.isalnum()]
    return positions[size - 1] + 1 if len(positions) >= size else 0
