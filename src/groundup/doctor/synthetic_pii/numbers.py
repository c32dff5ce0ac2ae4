"""Generates IP addresses, card numbers, IBANs and national ids with valid check digits."""

import importlib
import random
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stdnum import iban as iban_checks
from stdnum import luhn, numdb

from groundup.doctor.synthetic_pii.writing import ANYWHERE, CODE, in_groups, some

_CHARACTERS = {"n": string.digits, "a": string.ascii_uppercase, "c": string.ascii_uppercase + string.digits}


def ip(rng: random.Random) -> tuple[str, Sequence[str]]:
    own = (
        "http://{}/",
        "ssh root@{} ",
        '{} - - [10/Oct/2000:13:55:36] "GET /"',
        "host={}",
        "from {} port 22",
        "ping {}",
    )
    if rng.random() < 0.6:
        first = rng.choice([n for n in range(11, 224) if n not in (100, 127, 169, 172, 192, 198, 203)])
        return f"{first}.{'.'.join(str(rng.randrange(256)) for _ in range(3))}", (
            *ANYWHERE,
            *CODE,
            *own,
            "{}:8080",
            "{}/24",
        )
    groups = [rng.choice(["2600", "2a02", "2001", "2804", "240e"]), f"{rng.randrange(0x4000, 0x10000):x}"]
    groups += [f"{rng.randrange(0x10000):x}" for _ in range(6)]
    if rng.random() < 0.5:
        groups[3:6] = [""]
    address = ":".join(groups)
    return rng.choice([address, address.upper()]), (
        *ANYWHERE,
        *CODE,
        "http://[{}]/",
        "inet6 {}/64",
        "from {} port 22",
    )


def card(rng: random.Random) -> tuple[str, Sequence[str]]:
    prefix, size, groups = rng.choice(
        [("4", 16, (4, 4, 4, 4)), ("51", 16, (4, 4, 4, 4)), ("55", 16, (4, 4, 4, 4)), ("2221", 16, (4, 4, 4, 4)),
         ("34", 15, (4, 6, 5)), ("37", 15, (4, 6, 5)), ("6011", 16, (4, 4, 4, 4)), ("65", 16, (4, 4, 4, 4)),
         ("36", 14, (4, 6, 4)), ("3530", 16, (4, 4, 4, 4)), ("6221", 16, (4, 4, 4, 4)), ("2202", 16, (4, 4, 4, 4))]
    )  # fmt: skip
    body = prefix + some(rng, string.digits, size - len(prefix) - 1)
    digits = body + luhn.calc_check_digit(body)
    own = ("Visa {}", "card number: {}", "CC {} exp 09/27", "Kreditkarte {}", '"card": "{}"')
    return in_groups(digits, groups, rng.choice(["", " ", "-", "\u00a0"])), (*ANYWHERE, *CODE, *own)


def iban(rng: random.Random) -> tuple[str, Sequence[str]]:
    country = rng.choice(
        [
            "DE",
            "GB",
            "FR",
            "ES",
            "IT",
            "NL",
            "BE",
            "PL",
            "SE",
            "CH",
            "AT",
            "PT",
            "NO",
            "DK",
            "FI",
            "IE",
            "GR",
            "CZ",
            "HU",
            "RO",
            "TR",
            "AE",
            "SA",
            "BR",
            "MT",
            "LU",
        ]
    )
    bban, size = "", ""
    for char in numdb.get("iban").info(country)[0][1]["bban"]:  # e.g. 4!a6!n8!n: four letters, six digits ...
        if char.isdigit():
            size += char
        elif char in _CHARACTERS:
            bban += some(rng, _CHARACTERS[char], int(size))
            size = ""
    number = country + iban_checks.calc_check_digits(f"{country}00{bban}") + bban
    written = in_groups(number, (4,) * 9, rng.choice(["", " ", " ", "\u00a0", "-"]))
    own = ("IBAN: {}", "IBAN {} BIC", "Konto {} bei der Bank", "pay to {} by Friday", '"iban": "{}"')
    return written if rng.random() < 0.9 else number.lower(), (*ANYWHERE, *CODE, *own)


@dataclass(frozen=True, slots=True)
class _Id:
    """Format of a national id: # digit, @ letter, Y, M, D of a birthday; `labels` when only a label identifies it."""

    module: str
    make: str
    forms: tuple[str, ...]
    labels: tuple[str, ...] = ()


_IDS = (
    _Id("us.ssn", "#########", ("###-##-####",)),
    _Id("us.ssn", "#########", ("#########", "### ## ####"),
        ("SSN {}", "Social Security Number: {}", "my ssn is {} .")),
    _Id("", "AB######C", ("@@######@", "@@ ## ## ## @")),
    _Id("de.idnr", "###########", ("###########", "## ### ### ###"), ("Steuer-ID: {}", "IdNr. {}", "Steuer-IdNr. {}")),
    _Id("fr.nir", "1YYMM75########", ("# ## ## ## ### ### ##", "###############")),
    _Id("es.dni", "########@", ("########@", "########-@")),
    _Id("es.nie", "X#######@", ("@#######@", "@-#######-@")),
    _Id("it.codicefiscale", "RSSMRAYYH##F205@", ("@@@@@@##@##@###@", "@@@ @@@ ##@## @###@")),
    _Id("nl.bsn", "#########", ("#########", "### ### ###"), ("BSN: {}", "burgerservicenummer {}")),
    _Id("pl.pesel", "YYMMDD#####", ("###########",), ("PESEL {}", "PESEL: {}", "nr PESEL: {},")),
    _Id("se.personnummer", "YYMMDD####", ("######-####",)),
    _Id("be.nn", "YYMMDD#####", ("##.##.##-###.##",)),
    _Id("br.cpf", "###########", ("###.###.###-##",)),
    _Id("br.cpf", "###########", ("###########",), ("CPF: {}", "CPF {}", "cpf nº {}")),
    _Id("in_.aadhaar", "############", ("#### #### ####", "############"),
        ("Aadhaar: {}", "Aadhaar No. {}", "आधार {}")),
    _Id("in_.pan", "ABCPK####L", ("@@@@@####@",)),
    _Id("cn.ric", "11010119YYMMDD####", ("##################",), ("{}", "身份证号码{}，", "ID: {}")),
    _Id("ca.sin", "#########", ("### ### ###", "###-###-###", "#########"), ("SIN: {}", "Social Insurance Number {}")),
    _Id("au.tfn", "#########", ("### ### ###", "#########"), ("TFN: {}", "Tax File Number {}")),
    _Id("fi.hetu", "DDMMYY-###@", ("###########",)),
    _Id("ch.ssn", "756##########", ("###.####.####.##",)),
    _Id("mx.curp", "BOXWYYMMDDHNERXN0#", ("@@@@######@@@@@@##",)),
    _Id("kr.rrn", "YYMMDD1######", ("######-#######",)),
    _Id("no.fodselsnummer", "DDMMYY#####", ("###### #####", "###########"), ("fødselsnummer: {}", "Fødselsnummer {}")),
    _Id("dk.cpr", "DDMMYY####", ("######-####",), ("CPR: {}", "CPR-nr. {}")),
    _Id("cl.rut", "########@", ("##.###.###-@",)),
    _Id("tr.tckimlik", "###########", ("###########",), ("TC Kimlik No: {}",)),
    _Id("za.idnr", "YYMMDD#######", ("#############", "###### #### ###"), ("ID number: {}", "Identity number {}")),
    _Id("gb.nhs", "##########", ("### ### ####", "##########"), ("NHS number: {}", "NHS No {}")),
)  # fmt: skip


def national_id(rng: random.Random) -> tuple[str, Sequence[str]]:
    kind = rng.choice(_IDS)
    number = iter(_number(rng, kind))
    written = "".join(next(number) if mark in "#@" else mark for mark in rng.choice(kind.forms))
    return written, kind.labels or (*ANYWHERE, *CODE, "ID: {}")


def _number(rng: random.Random, kind: _Id) -> str:
    """Random numbers until the check digits are valid."""
    validator: Any = importlib.import_module(f"stdnum.{kind.module}") if kind.module else None
    while True:
        day = {"Y": rng.randrange(40, 99), "M": rng.randrange(1, 13), "D": rng.randrange(1, 29)}
        digits = kind.make
        for mark, value in day.items():
            digits = digits.replace(mark * 2, f"{value:02d}", 1)
        number = "".join(_random_char(rng, mark) for mark in digits)
        if validator is None or validator.is_valid(number):
            return number


def _random_char(rng: random.Random, mark: str) -> str:
    if mark == "@":
        return rng.choice(string.ascii_uppercase)
    return rng.choice(string.digits) if mark == "#" else mark
