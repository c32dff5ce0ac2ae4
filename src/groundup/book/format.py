"""Formatting of numbers, times and untrusted text for the book.

in:  metrics of any stage, None where one is absent; arbitrary text
out: short strings
"""

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

MISSING = "not measured"

_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def number(value: Any, digits: int = 2) -> str:
    """A number with `digits` decimals and thousands separators; "not measured" when absent."""
    if not is_number(value):
        return MISSING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def count(value: Any) -> str:
    """A count with thousands separators."""
    return f"{round(value):,}" if is_number(value) else MISSING


def short(value: Any) -> str:
    """A large count in words: 4,210,000 -> 4.21 million."""
    if not is_number(value):
        return MISSING
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}"
    return count(value)


def percent(value: Any, digits: int = 0) -> str:
    """A fraction as a percentage."""
    return f"{100 * value:.{digits}f} %" if is_number(value) else MISSING


def size(value: Any) -> str:
    """Bytes as kB, MB, GB (powers of 1000)."""
    if not is_number(value):
        return MISSING
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:.1f} {name}"
    return f"{value:.0f} bytes"


def duration(seconds: Any) -> str:
    """A duration: 7.4 s, 3 min 20 s, 2 h 05 min."""
    if not is_number(seconds):
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def interval(bounds: Any, digits: int = 2, signed: bool = False) -> str:
    """A 95 % interval as `1.20 to 1.31`; empty when absent."""
    if not is_interval(bounds):
        return ""
    sign = "+" if signed else ""
    low, high = (f"{value:{sign}.{digits}f}" for value in bounds)
    return f"{low} to {high}"


def reason(name: str) -> str:
    """A reason's code as words: too_few_words -> too few words."""
    return visible(name).replace("_", " ")


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a finite number (a bool is none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_interval(value: Any) -> TypeGuard[Sequence[float]]:
    """Whether `value` is a pair of finite numbers."""
    return isinstance(value, list | tuple) and len(value) == 2 and all(is_number(item) for item in value)


def visible(text: str) -> str:
    """Text with control, bidirectional and unpaired surrogate characters replaced by visible symbols."""
    return "".join(_shown(char) for char in text.replace("\r\n", "\n").expandtabs(4))


def clip(text: str, limit: int = 900) -> str:
    """`visible` text of at most `limit` characters, with the number of omitted characters."""
    if len(text) <= limit:
        return visible(text)
    return visible(text[:limit]).rstrip() + f" … ({len(text) - limit:,} more characters)"


def _shown(char: str) -> str:
    value = ord(char)
    if char == "\n":
        return char
    if value < 0x20:
        return chr(0x2400 + value)
    if value == 0x7F:
        return "\u2421"
    if (
        0x80 <= value < 0xA0
        or 0xD800 <= value < 0xE000
        or value & 0xFFFE == 0xFFFE
        or 0xFDD0 <= value < 0xFDF0
    ):
        return "\ufffd"
    if char in _BIDI:
        return f"[U+{value:04X}]"
    return "\n" if char in "\u2028\u2029" else char
