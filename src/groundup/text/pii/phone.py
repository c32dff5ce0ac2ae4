"""Finder of phone numbers, validated by libphonenumber (https://github.com/google/libphonenumber).

A number without + or 00 needs a label such as `tel` before it, or the digit groups of its region; (555) 123-4567
is always a phone number.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

import phonenumbers
from phonenumbers import PhoneMetadata
from phonenumbers.data import _ALT_NUMBER_FORMATS
from stdnum import isbn

from groundup.text.pii import SEPARATOR, SOME_DIGITS, Finder, Range, context_around, is_word_char

_RUN = re.compile(rf"[+(]{{0,2}}\d(?:{SEPARATOR}{{0,3}}\d){{6,40}}+", re.ASCII)
_LABEL = re.compile(
    r"(?:\b(?:tele(?:ph(?:one|on)|fono|fon|foon|x)|tel|t[ée]l[ée]phone|t[ée]l|tlf|phone|(?:tele)?fax|whats ?app|sms|"
    r"mob(?:ile|il|iel)?|cell(?:ulare?|phone)?|celular|m[óo]vil|handy|call(?: me)?(?: (?:at|on))?|dial|hotline|ph|"
    r"my number|(?:reach|text|contact)(?: me| us)?(?: at| on)?|"
    r"тел(?:ефон)?|факс|моб|τηλ)\b|[☎☏📞📱]|電話|电话|手机|传真|전화|هاتف|טלפון|फ़ोन)"
    r"[^\w+(]{0,6}(?:(?:numbers?|no|nr|num|is|office|home|work|direct|us)\b[^\w+(]{0,6}){0,2}$",
    re.IGNORECASE,
)
_LABELLED = re.compile(rf"[+(]{{0,2}}\d(?:{SEPARATOR}{{0,3}}\d){{6,14}}+(?!\w)", re.ASCII)
_NOT_DIGITS = re.compile(r"\D+")
_NOT_PHONE = re.compile(
    r"\(?(?:19|20)\d\d[-./](?:0?[1-9]|1[0-2])[-./](?:0?[1-9]|[12]\d|3[01])(?!\d)"
    r"|[+(]*\d+\.\d+$|(?:\d{1,3} )+000(?!\d)|\d{4,5}-\d{4,5}$|\d{1,3}(?:\.\d{1,3}){3}$"
)
"""Dates, fractions, thousands, ranges and IP addresses are not phone numbers."""
_ENDED = r"(?!\w|[@.,/-]\d|-\w)"
_EXTENSION = re.compile(r"(?: ?(?:ext\.?|x|#) ?\d{1,6})?(?!\w)", re.IGNORECASE | re.ASCII)
_NOT_INSIDE = r"(?<![\w/+.,])(?<!\w-)"
_AMERICAN = re.compile(
    rf"{_NOT_INSIDE}(?:\+?1[-. ]|001-)?"
    rf"(?:\(\d{{3}}\) ?\d{{3}}[-. ]|\d{{3}}-\d{{3}}-|\d{{3}}\.\d{{3}}\.|[2-9]\d\d \d{{3}} )\d{{4}}"
    rf"(?:(?=x\d)|{_ENDED})",
    re.ASCII,
)
"""Distinctive North American form; numbers that are not assigned match too."""
_ELSEWHERE = re.compile(
    rf"{_NOT_INSIDE}(?:\(0\d{{1,5}}\)[ /-]?\d[\d -]{{3,9}}\d|0\d{{2,4}}[ /-]\d{{5,8}}|1[3-9]\d{{9}}){_ENDED}",
    re.ASCII,
)
"""(0161) 4960930, 0191/496011; Chinese mobiles, the only kind recognised without groups."""
_ITALIAN = re.compile(rf"{_NOT_INSIDE}0\d{{1,3}}[ /.-]\d{{5,8}}{_ENDED}", re.ASCII)
"""06 12345678: the area code apart, the rest in one."""
_UNGROUPED = re.compile(rf"{_NOT_INSIDE}0\d{{9,10}}{_ENDED}", re.ASCII)
_EXTENSION = re.compile(r"(?: ?(?:ext\.?|x|#) ?\d{1,6})?(?!\w)", re.IGNORECASE | re.ASCII)


def phones(regions: tuple[str, ...]) -> tuple[Finder, ...]:
    """Finder of phone numbers: international, labelled, and in national form for `regions` (US, GB ...).

    Raises ValueError for a region unknown to phonenumbers.
    """
    local = tuple((region, _written_in(region)) for region in regions)

    def find(text: str) -> Iterator[Range]:
        for run in _RUN.finditer(text):
            if not _NOT_PHONE.match(run[0]):
                for start, end in _phones_in(text, run, local):
                    extension = _EXTENSION.match(text, end)
                    yield start, extension.end() if extension else end

    return (Finder("phone", (SOME_DIGITS,), find),)


def _phones_in(
    text: str, run: re.Match[str], local: tuple[tuple[str, re.Pattern[str]], ...]
) -> Iterator[Range]:
    """Ranges of phone numbers in a run of digits with short separators."""
    start, end = run.span()
    if _LABEL.search(context_around(text, start, end)[0]):
        labelled = _LABELLED.match(text, start)
        if labelled:
            yield labelled.span()
    if run[0].startswith(("+", "(+", "00", "(00")) and not is_word_char(text, start - 1):
        yield from _international(text, run)
    for pattern in (_AMERICAN, _ELSEWHERE) if local else ():
        for match in pattern.finditer(text, start, end + 2):
            if not _is_in_a_row(text, match):
                yield match.span()
    for match in _UNGROUPED.finditer(text, start, end + 2):
        if not isbn.is_valid(match[0]) and any(_is_phone(match[0], region) for region, _ in local):
            yield match.span()
    if any(region == "IT" for region, _ in local):
        for match in _ITALIAN.finditer(text, start, end + 2):
            if _is_phone(match[0], "IT") and not _is_in_a_row(text, match):
                yield match.span()
    for region, written in local:
        for match in written.finditer(text, start, end + 2):
            if _is_phone(match[0], region) and not _is_in_a_row(text, match):
                yield match.span()


def _international(text: str, run: re.Match[str]) -> Iterator[Range]:
    """Range of the longest valid number that begins with + or 00; digits after it may belong to something else."""
    if run[0].isdigit():
        return  # 00 and only digits: an identifier
    for group in reversed(list(re.finditer(r"\d+", run[0]))):
        digits = _NOT_DIGITS.sub("", run[0][: group.end()])
        end = run.start() + group.end()
        if not 7 <= len(digits) <= 17 or is_word_char(text, end):
            continue
        if _is_phone("+" + digits.removeprefix("00"), "") or _is_possible(digits, run[0][: group.end()]):
            start = run.start() + (")" not in run[0] and run[0].startswith("("))
            yield start, end
            return


def _is_possible(digits: str, written: str) -> bool:
    """Whether it has + and a possible length, grouped or long enough; unassigned numbers count."""
    if not written.lstrip("(").startswith("+") or (
        written.count(" ") + written.count("-") < 2 and len(digits) < 11
    ):
        return False
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse("+" + digits))
    except phonenumbers.NumberParseException:
        return False


@lru_cache(4096)
def _is_phone(number: str, region: str) -> bool:
    """Whether libphonenumber accepts the number. The region's pattern is checked first because it is cheap."""
    if region:
        prefix, possible = _pattern_of(region)
        digits = _NOT_DIGITS.sub("", number)
        if not possible.fullmatch(digits) and not possible.fullmatch(digits.removeprefix(prefix)):
            return False
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region or None))
    except phonenumbers.NumberParseException:
        return False


@lru_cache
def _pattern_of(region: str) -> tuple[str, re.Pattern[str]]:
    metadata = PhoneMetadata.metadata_for_region(region)
    assert metadata is not None and metadata.general_desc is not None, region
    return metadata.national_prefix or "", re.compile(str(metadata.general_desc.national_number_pattern))


@lru_cache
def _written_in(region: str) -> re.Pattern[str]:
    """Pattern of numbers in a region's national digit groups, with its prefix (0) where that is always written."""
    metadata = PhoneMetadata.metadata_for_region(region)
    if metadata is None:
        raise ValueError(f"`{region}` is not a region code of phonenumbers; use e.g. US, GB, DE")
    prefix = metadata.national_prefix
    own = tuple(metadata.number_format)
    bare = not prefix or any(way.national_prefix_optional_when_formatting for way in own)
    every = (*own, *_ALT_NUMBER_FORMATS.get(metadata.country_code or 0, ()))
    ways: dict[str, None] = {}  # the longest first, since the first that matches counts; each once
    for way in sorted(every, key=lambda way: -_most_digits(str(way.pattern))):
        rule = way.national_prefix_formatting_rule or prefix or ""
        optional = bare or not _NOT_DIGITS.sub("", rule.replace("\\1", "")).startswith(prefix or "")
        lead = rf"(?:{prefix}{SEPARATOR}{{0,3}}){'?' if optional else ''}" if prefix else ""
        body = re.sub(r"\((?!\?)", "(?:", way.pattern).replace(")(?:", rf"){SEPARATOR}{{1,3}}(?:")
        if SEPARATOR in body:
            ways[rf"{lead}\(?{body}"] = None
    return re.compile(rf"(?<![\w/+])(?<![\w.]-)(?<!\d[.,])\(?(?:{'|'.join(ways)}){_ENDED}", re.ASCII)


def _most_digits(pattern: str) -> int:
    """Digits of the longest number that a format's pattern of groups allows."""
    return sum(
        int(most or least or 1) for least, most in re.findall(r"\\d(?:\{(\d+)(?:,(\d+))?\})?", pattern)
    )


def _is_in_a_row(text: str, match: re.Match[str]) -> bool:
    """Whether the match is digit groups with more digit groups around it: a table row."""
    start, end = match.span()
    return not re.search(r"[^\d\s]", match[0]) and bool(
        re.search(r"\d\s$", text[max(0, start - 2) : start]) or re.match(r"\s\d", text[end : end + 2])
    )
