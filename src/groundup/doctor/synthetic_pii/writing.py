"""Alphabets, digit groups and surrounding text shared by the generators."""

import random
import string
from collections.abc import Callable, Sequence

Writer = Callable[[random.Random], tuple[str, Sequence[str]]]
"""Generates a value and the templates it may appear in; `{}` is the value's position."""

ANYWHERE = (
    "{}", "({})", "“{}”", '"{}"', "{}.", "{},", "{};", "{}\n", "\n{}\n", "\n- {}\n", "| name | {} |", "**{}**", "`{}`",
    "请联系{}谢谢", "連絡先は{}です", "связь: {} или", "للتواصل {} شكرا", "ติดต่อ {} ครับ", "값은 {}입니다", "<td>{}</td>",
)  # fmt: skip
CODE = ('x = "{}"', "value: '{}'", '{"id": 7, "value": "{}"}', "# {}\n", "f('{}')", "// {}\n")

BASE62 = string.ascii_letters + string.digits
BASE64URL = BASE62 + "-_"
HEX = "0123456789abcdef"


def some(rng: random.Random, alphabet: str, size: int) -> str:
    """A random string over `alphabet`."""
    return "".join(rng.choices(alphabet, k=size))


def in_groups(number: str, groups: Sequence[int], gap: str) -> str:
    """The digits of `number` in groups of the sizes `groups`, joined by `gap`."""
    parts, at = [], 0
    for size in groups:
        parts.append(number[at : at + size])
        at += size
    return gap.join(filter(None, parts))
