"""Formatting of values and untrusted text."""

import math

import pytest

from groundup.book.format import clip, duration, interval, is_number, number, percent, short, size, visible


@pytest.mark.parametrize(
    ("formatted", "expected"),
    [
        (short(4_196_864), "4.2 million"),
        (short(950), "950"),
        (number(3.14159), "3.14"),
        (number(None), "not measured"),
        (number(math.nan), "not measured"),
        (percent(0.612), "61 %"),
        (size(12_201_332), "12.2 MB"),
        (duration(7.44), "7.4 s"),
        (duration(200), "3 min 20 s"),
        (duration(7500), "2 h 05 min"),
        (interval([0.5, 0.9], signed=True), "+0.50 to +0.90"),
        (interval(None), ""),
    ],
)
def test_values_are_formatted_for_people(formatted: str, expected: str) -> None:
    assert formatted == expected


def test_invisible_characters_become_visible() -> None:
    assert visible("a\x00b\x1b\x7f") == "a␀b␛␡"
    assert visible("\u202eabc\u2066") == "[U+202E]abc[U+2066]"
    assert visible("\ud800\uffff\x85") == "\ufffd\ufffd\ufffd"
    assert visible("one\r\ntwo\u2028three") == "one\ntwo\nthree"
    assert visible("日本 🎉 שלום é") == "日本 🎉 שלום é"


def test_a_clipped_text_counts_the_omitted_characters() -> None:
    assert clip("x" * 1200, 1000) == "x" * 1000 + " … (200 more characters)"


def test_a_bool_is_no_number() -> None:
    assert not is_number(True)
    assert is_number(0)
