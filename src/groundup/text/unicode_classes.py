"""Character classes by code point: word characters, letters, digits, sentence ends.

in:  valid UTF-8 bytes
out: code points, and a class per byte, by one table look-up per non-ASCII character

Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese and related) have one word per
character, including its combining marks and following punctuation: `灯塔。` is two words like `light tower.`.
In Tibetan, syllables are words.
"""

import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

BETWEEN, WITHIN, ALONE, JOINED = range(4)
"""Word classes: separator; word character; a word by itself; the same, unless it follows a word by itself."""
LETTER, DIGIT = 1, 2
"""Content classes: letters with their combining marks; digits of any script. All other characters are 0."""
SENTENCE_ENDS = "!.?։؝؞؟۔܀܁܂߹।॥၊။።፧፨᙮᜵᜶។៕៖៙៚᠃᠉᥄᥅᪨᪩᪪᪫᭚᭛᭞᭟᭽᭾᰻᰼᱾᱿‼‽⁇⁈⁉⸮⸼⹓⹔。꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝꩞꩟꫰꫱꯫﹒﹖﹗！．？｡"
"""Sentence-ending characters of modern scripts: Unicode's Sentence_Terminal."""

_SPACES = "\0\u200b\ufeff\u0f0b\u0f0c"
"""Word separators beyond white space: invisible characters and Tibetan's dot between syllables."""
_UNSPACED = {
    4: ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF),
        (0xA9E0, 0xA9FF), (0xAA60, 0xAADF)),
    2: ((0x3005, 0x3007), (0x3040, 0x312F), (0x31A0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
        (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x20000)),
}  # fmt: skip
"""Scripts without spaces (UAX #14 classes SA and ID) by approximate letters per dictionary word:
Thai, Lao, Burmese, Khmer and the Tai scripts; kana, Bopomofo, Chinese.
"""
_UNMARKED = range(0x0E00, 0x0F00)
"""Thai and Lao, which end a sentence with a space, if at all."""
_TABLED = 0x20000
"""Characters from here on are almost all Chinese."""
_SIZE = np.repeat(np.array([1, 2, 3, 4], np.uint8), [0xC0, 0x20, 0x10, 0x10])
_LEAD_BITS = (np.arange(256) & np.array([0x7F, 0x1F, 0x0F, 0x07])[_SIZE - 1]).astype(np.int32)


def code_points(data: Bytes, at: Ints) -> NDArray[np.int32]:
    """Code points of the characters that start at `at`. All from U+20000 on become U+20000."""
    lead = data[at]
    points: NDArray[np.int32] = _LEAD_BITS[lead]
    size = _SIZE[lead]
    for step in (1, 2, 3):
        more = np.flatnonzero(size > step)
        points[more] = points[more] << 6 | data[at[more] + step] & 0x3F
    np.minimum(points, _TABLED, out=points)
    return points


def before(data: Bytes, end: Ints) -> Ints:
    """First byte of the character that ends before each of these positions."""
    at = end - 1
    for _ in range(3):
        at -= data[at] & 0xC0 == 0x80
    return at


def word_classes(data: Bytes, plain: bool) -> Bytes:
    """[bytes]: BETWEEN or WITHIN; ALONE or JOINED for first bytes only. plain: punctuation separates words."""
    table = tables()["plain" if plain else "words"]
    classes, lead, lead_classes = _look_up(data, table, rest=WITHIN)
    separators = lead[lead_classes == BETWEEN]
    for step in (1, 2, 3):
        separators = separators[_SIZE[data[separators]] > step]
        classes[separators + step] = BETWEEN
    return classes


def content(data: Bytes) -> Bytes:
    """[bytes]: LETTER or DIGIT for the first byte of a letter or digit, else 0."""
    return _look_up(data, tables()["content"], rest=0)[0]


def _look_up(data: Bytes, table: Bytes, rest: int) -> tuple[Bytes, Ints, Bytes]:
    """Classes of all bytes, `rest` for continuation bytes; positions of non-ASCII characters and their classes."""
    by_byte = table[:128].tobytes() + bytes([rest]) * 128
    classes: Bytes = np.frombuffer(bytearray(data).translate(by_byte), np.uint8)
    lead = np.flatnonzero(data >= 0xC0)
    lead_classes = table[code_points(data, lead)]
    classes[lead] = lead_classes
    return classes, lead, lead_classes


@cache
def tables() -> dict[str, NDArray[np.uint8]]:
    """Tables by code point: classes for `words`, `plain` words, `content`; 1 for `unmarked`, `ends`, `closers`;
    for `unspaced` the approximate letters per word in such a script, else 0.
    """
    points = np.arange(_TABLED + 1)
    chars = [chr(point) for point in points]
    category = np.array([unicodedata.category(char) for char in chars])
    major = category.astype("U1")
    space = np.array([char.isspace() for char in chars]) | _among(_SPACES)
    between = (space | np.isin(major, ["P", "S", "Z"]) | (category == "Cc")) & ~_among("_")
    unspaced = np.zeros(len(points), np.uint8)
    for letters, ranges in _UNSPACED.items():
        for first, last in ranges:
            unspaced[first : last + 1] = letters
    alone = (unspaced > 0) & ~between & (major != "M")
    joined = np.isin(major, ["M", "P", "S"]) | (category == "Cf")
    classes = WITHIN + (ALONE - WITHIN) * alone + (JOINED - WITHIN) * joined
    letter = np.isin(major, ["L", "M"]) | (points == _TABLED)
    by_name = {
        "words": np.where(space, BETWEEN, classes),
        "plain": np.where(between, BETWEEN, classes),
        "content": np.where(letter, LETTER, np.where(major == "N", DIGIT, 0)),
        "unspaced": unspaced * alone,
        "unmarked": np.isin(points, _UNMARKED),
        "ends": _among(SENTENCE_ENDS),
        "closers": np.isin(category, ["Pe", "Pf"]) | _among("\"'"),
    }
    return {name: table.astype(np.uint8) for name, table in by_name.items()}


def _among(chars: str) -> Mask:
    mask = np.zeros(_TABLED + 1, dtype=bool)
    mask[[ord(char) for char in chars]] = True
    return mask
