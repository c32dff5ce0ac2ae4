"""Finder of national identity numbers by country; python-stdnum validates check digits.

A distinctive form (123-45-6789, RSSMRA85T10A562S) is enough, and so are digits with a date of birth and a check digit,
which random digits satisfy once in fifty. Other digits satisfy their check once in ten: they need the number's name
(`SIN`) or a phrase such as `identity number` nearby. Directly after its name a number needs no valid check digit.
"""

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from groundup.text.pii import AFTER_FIRST, AFTER_NUMBER, SEPARATOR, Finder, Range, context_around


@dataclass(frozen=True, slots=True)
class Id:
    """One kind of identity number: `form` is sufficient alone, `plain` needs one of `words` nearby ("" = none).

    Both need valid check digits, except directly after one of `words`.
    """

    country: str
    module: str
    """Module of stdnum; "" = the number has no check digit, the form alone decides."""
    form: str = ""
    plain: str = ""
    words: str = ""


_2M = r"\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"  # yymmdd
_2D = r"(?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2])\d\d"  # ddmmyy
_CF = "[0-9LMNP-V]"  # a digit of the codice fiscale, or the letter that stands for it
_333 = r"\d{3}[ -]?\d{3}[ -]?\d{3}"

IDS = (
    Id("US", "", r"\d{3}-\d{2}-\d{4}", r"\d{3}[ .]?\d{2}[ .]?\d{4}",
       "ssn|social security(?: (?:number|no))?"),
    Id("US", "us.itin", "", r"9\d{2}[ -]?\d{2}[ -]?\d{4}", "itin|taxpayer identification(?: (?:number|no))?"),
    Id("GB", "", r"(?:[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]|QQ|ZZ)[ -]?\d\d[ -]?\d\d[ -]?\d\d[ -]?[A-DT]",
       r"[A-Za-z]{2}[ -]?\d\d[ -]?\d\d[ -]?\d\d[ -]?[A-Da-d]", "nino?|national insurance(?: (?:number|no))?"),
    Id("GB", "gb.nhs", "", r"\d{3}[ -]?\d{3}[ -]?\d{4}", "nhs(?: (?:number|no))?"),
    Id("DE", "de.idnr", r"[1-9]\d ?\d{3} ?\d{3} ?\d{3}", r"\d{2}[ /]?\d{3}[ /]?\d{3}[ /]?\d{3}",
       "steuer-?id|(?:steuer-?)?(?:idnr|id-nr|identifikationsnummer|identnummer)|steuernummer"),
    Id("FR", "fr.nir",
       r"[1-478][ .]?\d\d[ .]?(?:0[1-9]|1[0-2]|[2-9]\d)[ .]?(?:\d\d|2[AB])[ .]?\d{3}[ .]?\d{3}[ .]?\d\d",
       r"[12][ .]?\d\d[ .]?\d\d[ .]?(?:\d\d|2[ABab])[ .]?\d{3}[ .]?\d{3}(?:[ .]?\d\d)?",
       "nir|insee|s[ée]curit[ée] sociale|nss"),
    Id("ES", "es.dni", r"\d{8}[ -]?[A-HJ-NP-TV-Z]|\d\d\.\d{3}\.\d{3}[ -]?[A-HJ-NP-TV-Z]",
       r"\d{1,2}\.?\d{3}\.?\d{3}[ -]?[A-Za-z]", "dni|nif"),
    Id("ES", "es.nie", r"[XYZ][ -]?\d{7}[ -]?[A-HJ-NP-TV-Z]",
       r"[XYZxyz][ -]?\d{7}[ -]?[A-Za-z]", "nie"),
    Id("IT", "it.codicefiscale", rf"[A-Z]{{3}} ?[A-Z]{{3}} ?{_CF}{{2}}[A-EHLMPR-T]{_CF}{{2}} ?[A-Z]{_CF}{{3}} ?[A-Z]",
       r"[A-Za-z]{6}\w\w[A-Za-z]\w\w[A-Za-z]\w{3}[A-Za-z]", "codice fiscale"),
    Id("NL", "nl.bsn", "", r"\d{9}|\d{3}[ .]\d{3}[ .]\d{3}|\d{4}[ .]\d{2}[ .]\d{3}",
       "bsn|burgerservicenummer|sofi-?nummer"),
    Id("PL", "pl.pesel", r"\d{11}", r"\d{11}", "pesel"),
    Id("SE", "se.personnummer", rf"(?:19|20)?{_2M}[-+]\d{{4}}|(?:19|20){_2M}\d{{4}}", r"\d{10}|\d{12}",
       "personnummer|pnr|personnr"),
    Id("BE", "be.nn", r"\d\d\.\d\d\.\d\d-\d{3}[.-]\d\d|\d{11}", r"\d{6}[ -]?\d{3}[ -]?\d{2}",
       "rijksregister|rijksregisternummer|registre national|numéro national|niss|insz"),
    Id("BR", "br.cpf", r"\d{3}\.\d{3}\.\d{3}-\d\d|\d{9}-?\d\d", r"\d{3}\.?\d{3}\.?\d{3}[-. ]?\d\d", "cpf"),
    Id("IN", "in_.aadhaar", r"[2-9]\d{3}[ -]?\d{4}[ -]?\d{4}", r"\d{4}[ -]?\d{4}[ -]?\d{4}", "aadhaa?r|uidai|आधार"),
    Id("IN", "in_.pan", r"[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]", r"[A-Za-z]{5}\d{4}[A-Za-z]",
       "pan(?: (?:card|number|no))*|permanent account number"),
    Id("CN", "iso7064.mod_11_2", rf"[1-9]\d{{5}}(?:19|20){_2M}\d{{3}}[\dXx]", r"\d{17}[\dXx]",
       "resident id(?:entity)?(?: card)?|身份证号?码?|公民身份号码"),
    Id("CA", "ca.sin", r"\d{3}[- ]\d{3}[- ]\d{3}", _333, "sin|social insurance|assurance sociale"),
    Id("AU", "au.tfn", "", _333, "tfn|tax file"),
    Id("FI", "fi.hetu", rf"{_2D}[-+A-FU-Y]\d{{3}}[0-9A-FHJ-NPR-Y]"),
    Id("DK", "dk.cpr", rf"{_2D}-\d{{4}}", rf"{_2D}[- ]?\d{{4}}", "cpr|cpr-?nr|cpr-?nummer|personnummer"),
    Id("NO", "no.fodselsnummer", r"\d{6} ?\d{5}", r"\d{6} ?\d{5}", "fødselsnummer|fnr|personnummer"),
    Id("PT", "pt.nif", "", _333, "nif|contribuinte"),
    Id("PT", "pt.cc", r"\d{8}[ -]?\d[ -]?[A-Z][A-Z0-9]\d"),
    Id("RO", "ro.cnp", r"\d{13}", r"\d{13}", "cnp"),
    Id("BG", "bg.egn", "", r"\d{10}", "егн|egn"),
    Id("CZ", "cz.rc", r"\d\d[0-8]\d[0-3]\d/\d{4}", r"\d{9,10}", "rodné číslo|r\\.č\\."),
    Id("CH", "ch.ssn", r"756[. ]?\d{4}[. ]?\d{4}[. ]?\d\d", r"756[ .]?\d{4}[ .]?\d{4}[ .]?\d\d", "ahv|avs|ahv-nr"),
    Id("AT", "at.vnr", "", r"\d{4} ?\d{6}", "svnr|sv-nummer|sozialversicherungsnummer|versicherungsnummer"),
    Id("IE", "ie.pps", r"\d{7}[A-W][A-IW]?", r"\d{7} ?[A-Wa-w][A-IWa-iw]?", "ppsn?"),
    Id("ZA", "za.idnr", r"\d{6} ?\d{4} ?\d{3}", r"\d{6} ?\d{4} ?\d{3}", "sa id|identiteitsnommer"),
    Id("MX", "mx.curp", r"[A-Z]{4}\d{6}[HMX][A-Z]{5}[0-9A-Z]\d"),
    Id("CL", "cl.rut", r"\d{1,2}\.\d{3}\.\d{3}-[\dkK]", r"\d{7,8}-?[\dkK]", "rut"),
    Id("AR", "ar.dni", "", r"\d{1,2}\.?\d{3}\.?\d{3}", "dni"),
    Id("TR", "tr.tckimlik", r"\d{11}", r"\d{11}", "t\\.?c\\.? ?kimlik|kimlik|tckn"),
    Id("KR", "", rf"{_2M}-[0-8]\d{{6}}", r"\d{6}-?\d{7}", "주민등록번호|rrn"),
    Id("GR", "gr.amka", r"\d{11}", r"\d{11}", "αμκα|amka"),
    Id("EE", "ee.ik", r"\d{11}", r"\d{11}", "isikukood"),
    Id("LT", "lt.asmens", r"\d{11}", r"\d{11}", "asmens kodas|a\\.k\\."),
    Id("HR", "hr.oib", "", r"\d{11}", "oib"),
    Id("SI", "si.emso", r"\d{4}[09]\d{8}", r"\d{13}", "emšo|emso|jmbg"),
    Id("TH", "th.pin", r"\d-\d{4}-\d{5}-\d\d-\d", r"\d{13}", "เลขประจำตัวประชาชน|บัตรประชาชน"),
    Id("MY", "my.nric", rf"{_2M}-\d\d-\d{{4}}", r"\d{12}", "nric|mykad|kad pengenalan"),
    Id("ID", "id.nik", "", r"\d{16}", "nik|ktp"),
    Id("IL", "il.idnr", "", r"\d{9}|\d{8}-\d", "תעודת זהות|ת\\.ז|מספר זהות|teudat zehut"),
    Id("JP", "jp.in_", "", r"\d{4}[ -]?\d{4}[ -]?\d{4}", "マイナンバー|個人番号|my number"),
    Id("UA", "ua.rntrc", "", r"\d{10}", "рнокпп|іпн"),
    Id("RU", "ru.inn", "", r"\d{12}|\d{10}", "инн"),
    Id("IS", "is_.kennitala", rf"{_2D}-\d{{4}}", r"\d{10}", "kennitala"),
    Id("PK", "pk.cnic", r"\d{5}-\d{7}-\d", r"\d{13}", "cnic|شناختی کارڈ"),
    Id("", "", "", r"(?:[A-Z]{1,3}[ -]?)?\d(?:[ ./-]?\d){6,15}(?:[ -]?[A-Z]{1,2})?",
       "national id(?:entity|entification)?(?: card)?|national_id|identity card|tax(?:payer)? id(?:entification)?|"
       "social security|personal id(?:entity|entification)?(?: code)?"),  # any other country
    Id("EC", "ec.ci", "", r"\d{10}", "cédula|cedula"),
)  # fmt: skip
_DIGITS = re.compile(r"\d(?:[ ./-]{0,3}\d){3,20}+", re.ASCII)
_LETTER = "0-9A-Za-z\u00c0-\u052f"  # scripts that separate words by spaces
_ANY_NAME = (
    r"(?:(?:national|personal|tax(?:payer)?|citizen|identity|identification|insurance) ?)+(?:card )?"
    r"(?:id|identity|identification|numbers?|no|code)|id(?:entity)? ?(?:card|numbers?|no)|national[_ ]id|tax[_ ]id|tin"
)
"""Phrases for identity numbers of any country."""
_NUMBER_OF = (
    r"(?:[ _-]?(?:numbers?|no|nr|num|n[º°]|číslo))?[\"'`*]{0,3}"
    r"(?:[^\w\n]{1,4}(?:is|ist|est|es|è|card)\b)?[^\w\n]{0,5}$"
)
"""Text allowed between the name and the number."""
COUNTRIES = tuple(sorted({kind.country for kind in IDS} - {""}))


def ids(countries: tuple[str, ...]) -> tuple[Finder, ...]:
    """Finders of identity numbers of `countries` (US, GB ...; empty = all). Raises ValueError for an unknown one."""
    unknown = sorted(set(countries) - set(COUNTRIES))
    if unknown:
        raise ValueError(
            f"no identity numbers are known of {', '.join(unknown)}; known: {', '.join(COUNTRIES)}"
        )
    chosen = tuple(kind for kind in IDS if not countries or kind.country in ("", *countries))
    return _finders(chosen)


@lru_cache(16)
def _finders(chosen: tuple[Id, ...]) -> tuple[Finder, ...]:
    formed = [kind for kind in chosen if kind.form]
    named = [kind for kind in chosen if kind.words]
    forms = "|".join(kind.form for kind in formed)
    form_hint = "|".join(rf"(?:^|[^0-9A-Za-z])(?:{kind.form})(?:[^0-9A-Za-z]|$)" for kind in formed)
    words = "|".join((*(kind.words for kind in named), _ANY_NAME))
    word = re.compile(rf"(?<![{_LETTER}])(?:{words})(?![{_LETTER}])", re.IGNORECASE)
    word_hint = rf"(?i)(?:^|\W|_)(?:{words})(?:\W|_|$)"
    pattern = re.compile(rf"(?=[0-9A-Z]{AFTER_FIRST})(?:{forms}){AFTER_NUMBER}", re.ASCII)
    digits_hint = rf"[0-9](?:{SEPARATOR}{{0,3}}[0-9]){{3}}"
    finders = (
        Finder("national_id", (form_hint,), lambda text: _find_formed(text, pattern, formed)),
        Finder("national_id", (digits_hint, word_hint), lambda text: _find_named(text, word, named)),
    )
    return tuple(finder for finder, kinds in zip(finders, (formed, named), strict=True) if kinds)


def _find_formed(text: str, pattern: re.Pattern[str], kinds: list[Id]) -> Iterator[Range]:
    for match in pattern.finditer(text):
        if any(re.fullmatch(kind.form, match[0]) and _is_valid(kind, match[0]) for kind in kinds):
            yield match.span()


def _find_named(text: str, word: re.Pattern[str], kinds: list[Id]) -> Iterator[Range]:
    """Ranges of numbers with their name, or the name of any identity number, on the same line."""
    for run in _DIGITS.finditer(text):
        before, after = context_around(text, *run.span())
        line, start = before + run[0] + after, run.start() - len(before)
        names = set(word.findall(line))
        for kind in kinds if names else ():
            own = any(re.fullmatch(kind.words, name, re.IGNORECASE) for name in names)
            if own or any(map(_any_name().fullmatch, names)):
                for match in _plain(kind).finditer(line):
                    if _is_valid(kind, match[0]) or (own and _named(kind).search(line, 0, match.start())):
                        yield start + match.start(), start + match.end()


@lru_cache
def _any_name() -> re.Pattern[str]:
    return re.compile(_ANY_NAME, re.IGNORECASE)


@lru_cache(128)
def _plain(kind: Id) -> re.Pattern[str]:
    return re.compile(rf"(?=[0-9A-Za-z]{AFTER_FIRST})(?:{kind.plain}){AFTER_NUMBER}", re.ASCII)


@lru_cache(128)
def _named(kind: Id) -> re.Pattern[str]:
    """Pattern of the number's name directly before the number."""
    return re.compile(rf"(?<![{_LETTER}])(?:{kind.words}){_NUMBER_OF}", re.IGNORECASE)


def _is_valid(kind: Id, number: str) -> bool:
    if not kind.module:
        return True
    return bool(_validator(kind.module).is_valid(re.sub(r"[ .]", "", number).upper()))


@lru_cache(128)
def _validator(module: str) -> Any:
    return importlib.import_module(f"stdnum.{module}")
