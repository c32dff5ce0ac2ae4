"""Generates e-mail addresses and phone numbers in common spellings."""

import random
from collections.abc import Sequence
from functools import lru_cache

import phonenumbers
from phonenumbers import PhoneNumberFormat

from groundup.doctor.synthetic_pii.writing import ANYWHERE, CODE

_GIVEN = [
    "ana",
    "john",
    "maria",
    "wei",
    "fatima",
    "olga",
    "jürgen",
    "siobhan",
    "kwame",
    "priya",
    "luca",
    "sven",
    "aiko",
    "pedro",
    "chloe",
    "ivan",
]
_FAMILY = [
    "smith",
    "garcia",
    "müller",
    "o'brien",
    "nguyen",
    "kowalski",
    "rossi",
    "van-dijk",
    "okafor",
    "singh",
    "tanaka",
    "silva",
    "dubois",
    "ivanov",
]
_HOSTS = (
    "gmail.com", "outlook.com", "yahoo.co.uk", "mail.ru", "qq.com", "protonmail.com", "cs.uni-freiburg.de", "web.de",
    "alumni.mit.edu", "orange.fr", "libero.it", "acme-corp.io", "x.ai", "dept.gov.au", "museum.travel", "bücher.ch",
)  # fmt: skip


def _name(rng: random.Random) -> str:
    given, family = rng.choice(_GIVEN), rng.choice(_FAMILY)
    year = str(rng.randrange(50, 100))
    name = rng.choice(
        [
            f"{given}.{family}",
            f"{given[0]}{family}",
            f"{given}_{family}{year}",
            f"{family}-{given}",
            given + year,
        ]
    )
    return rng.choice(
        [name, name.title(), name.upper(), name + "+" + rng.choice(["news", "shop.2024", "a1"])]
    )


def email(rng: random.Random) -> tuple[str, Sequence[str]]:
    address = f"{_name(rng)}@{rng.choice(_HOSTS)}"
    own = (
        "[write](mailto:{})",
        "E-mail: {}",
        "From: Ann <{}>",
        "<a href='mailto:{}'>",
        "cc={}&",
        "to:{}",
        "{}; ",
    )
    return address, (*ANYWHERE, *CODE, *own)


def obfuscated_email(rng: random.Random) -> tuple[str, Sequence[str]]:
    at, dot = rng.choice(
        [(" [at] ", " [dot] "), ("(at)", "(dot)"), (" at ", " dot "), (" AT ", " DOT "), ("[at]", "."), (" (at) ", "."),
         (" {at} ", " {dot} "), (" @ ", " . "), ("<at>", "<dot>"), ("&#64;", "."), (" [AT] ", " dot ")]
    )  # fmt: skip
    host = rng.choice(["gmail.com", "yahoo.co.uk", "cs.uni-freiburg.de", "acme-corp.io", "orange.fr"])
    name = _name(rng).split("+")[0]
    return f"{name}{at}{host.replace('.', dot)}", (
        "{}",
        "({})",
        "mail: {}",
        "{}.",
        "\n{}\n",
        "{},",
        "| {} |",
        "**{}**",
    )


@lru_cache
def _abroad() -> tuple[str, ...]:
    return tuple(sorted(phonenumbers.SUPPORTED_REGIONS))


def phone(rng: random.Random, regions: tuple[str, ...]) -> tuple[str, Sequence[str]]:
    at_home = bool(regions) and rng.random() < 0.5
    region = rng.choice(regions if at_home else _abroad())
    kind = rng.choice([phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE])
    number = phonenumbers.example_number_for_type(region, kind) or phonenumbers.example_number(region)
    assert number is not None and number.national_number is not None, region
    for _ in range(20):
        other = number.national_number // 1000 * 1000 + rng.randrange(1000)
        varied = phonenumbers.PhoneNumber(
            number.country_code, other, italian_leading_zero=number.italian_leading_zero
        )
        if phonenumbers.is_valid_number(varied):
            number = varied
            break
    own = (
        "Tel. {}",
        "Phone: {}",
        "call {} today",
        "Fax {}",
        "☎ {}",
        "{} (ask for Ann)",
        "电话：{}",
        "Mobile/WhatsApp: {}",
    )
    if not at_home:
        return _written_abroad(rng, number), (*ANYWHERE, *CODE, *own, "[call](tel:{})")
    text = phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL)
    if rng.random() < 0.2:
        return "".join(filter(str.isdigit, text)), [frame for frame in own if not frame.startswith("{}")]
    return rng.choice(
        [
            text,
            text.replace(" ", "-"),
            text.replace("-", "."),
            text.replace(" ", "\u00a0"),
        ]
    ), (
        *ANYWHERE,
        *CODE,
        *own,
    )


def _written_abroad(rng: random.Random, number: phonenumbers.PhoneNumber) -> str:
    text = phonenumbers.format_number(number, PhoneNumberFormat.INTERNATIONAL)
    code, _, rest = text.partition(" ")
    return rng.choice(
        [text, phonenumbers.format_number(number, PhoneNumberFormat.E164), text.replace(" ", "-"), f"({code}) {rest}",
         text.replace(" ", "."), text.replace(" ", "\u00a0"), text.replace("-", "\u2011"), f"00{text[1:]}"]
    )  # fmt: skip
