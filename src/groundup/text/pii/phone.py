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
    r"(?:\b(?:tel[ée](?:ph(?:one|on)|fono|fone|fon|foon|x)|tel|t[ée]l[ée]phone|t[ée]l|tlf|phone|(?:tele)?fax|"
    r"whats ?app|sms|"
    r"mob(?:ile|il|iel)?|cell(?:ulare?|phone)?|cel(?:ular)?|m[óo]vil|telem[óo]vel|handy|hotline|ph|my number|"
    r"(?:telefon|handy|mobil|ruf|fax)(?:nummer|nr)|call(?: me)?(?: (?:at|on))?|dial|"
    r"(?:reach|text|contact)(?: me| us)?(?: at| on)?|(?:ligue|ligar)(?: para)?|(?:ll[áa]m[ae](?:me|nos|r)?|"
    r"chiam(?:a|ate|are)(?:mi|ci)?)(?: al?(?: numero)?| lo)?|appele[rz](?:-moi|-nous)?(?: au| le)?|erreichbar unter|"
    r"тел(?:ефон)?|факс|моб|звоните(?: по)?|τηλ)\b|"
    r"[☎☏📞📱]|電話|电话|手机|传真|致电|拨打|联系|전화|هاتف|טלפון|फ़ोन|फोन|मोबाइल)"
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
    rf"{_NOT_INSIDE}(?:\(0\d{{1,5}}\)[ /-]?\d[\d -]{{3,9}}\d|0\d{{2,4}}[ /-]\d{{5,8}}|0\d{{1,3}}-\d{{3,4}}-\d{{4}}"
    rf"|1[3-9]\d([ -]?)\d{{4}}\1\d{{4}}|8[ -]?\(\d{{3,4}}\)[ -]?\d{{2,3}}(?:[ -]?\d\d){{2}}){_ENDED}",
    re.ASCII,
)
"""(0161) 4960930, 0191/496011, 010-1234-5678, 8 (912) 345-67-89; Chinese mobiles, found without groups too."""
_OTHER_GROUPS = {"AU": r"04\d\d[ -]?\d{3}[ -]?\d{3}", "IT": r"0\d{1,3}[ /.-]\d{5,8}|3[2-9]\d[ /-]\d{6,7}"}
"""Groups that people write and libphonenumber doesn't: 0412345 678, 06 12345678, 347 1234567."""
_MOBILES = {"BR": r"[1-9]{2}9\d{8}", "IN": r"[6-9]\d{9}", "IT": r"3[2-9]\d{8}"}
"""Mobiles without any group, which need a word of contact before them: bare digits are more often something else."""
_CONTACT = re.compile(
    r"(?:\b(?:write|writes|wrote|message|messages|text|texted|ring|reach|contact|call|calls|called|calling|dial|scriv[aei]|"
    r"scrivimi|chiam\w{1,6}|liga[re]?|ligue|mande|llam\w{1,5}|escrib\w{1,4}|appel\w{1,4}|joindre|anruf\w{0,3}|melde[nt]?|"
    r"звон\w{1,5}|пиш\w{1,4}|कॉल|संपर्क)\b|打|联系|聯繫)[^\d\n]{0,20}$",
    re.IGNORECASE,
)
_NOT_CONTACT = re.compile(
    r"\b(?:order|invoice|account|acc(?:oun)?t|ref(?:erence)?|id|isbn|track(?:ing)?|serial|customer|policy|ticket|case|item|sku|"
    r"function|method|value|size|bytes|pedido|conta|cuenta|fattura|ordine|conto|rechnung|konto|kunden\w*)\b",
    re.IGNORECASE,
)
_UNGROUPED = re.compile(rf"{_NOT_INSIDE}0\d{{9,10}}{_ENDED}", re.ASCII)


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
    for region, written in local:
        for match in written.finditer(text, start, end + 2):
            if _is_phone(match[0], region) and not _is_in_a_row(text, match):
                yield match.span()
    if run[0].isdigit() and any(_is_mobile(run[0], region) for region, _ in local):
        before, _ = context_around(text, start, end)
        if _CONTACT.search(before) and not _NOT_CONTACT.search(before) and not is_word_char(text, end):
            yield start, end


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


def _is_mobile(digits: str, region: str) -> bool:
    """Whether digits without groups are a mobile number of the region, and no ISBN."""
    own = _MOBILES.get(region)
    return bool(own and re.fullmatch(own, digits)) and not isbn.is_valid(digits) and _is_phone(digits, region)


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
    if region in _OTHER_GROUPS:
        ways[_OTHER_GROUPS[region]] = None
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
