"""Words, lines and their hashes, against Python's own strings and against how Unicode names its characters."""

import re
import time
import unicodedata
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.text.segment import (
    Bytes,
    Ints,
    Spans,
    groups,
    hashes_of,
    lines,
    ngrams,
    paragraphs,
    plain_words,
    stretches,
    trimmed_lines,
    words,
)
from groundup.text.unicode_classes import SENTENCE_ENDS, before, code_points, content, tables

SPACED = st.text("aB1_.,-é ßжक\u093e\u0301🙂\u00a0\u2028\t\n\r\u200b'", max_size=40)
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TEXTS = st.lists(SPACED, max_size=6)


def joined(texts: list[str]) -> tuple[Bytes, Ints]:
    """As a batch holds them."""
    data = "".join(texts).encode()
    ends = np.cumsum([0, *(len(text.encode()) for text in texts)])
    return np.frombuffer(data, np.uint8), ends


def strings(pieces: Spans) -> list[list[str]]:
    """What the pieces of each document say."""
    said = [
        pieces.data[start:end].tobytes().decode() for start, end in zip(pieces.start, pieces.end, strict=True)
    ]
    return [said[first:last] for first, last in zip(pieces.first[:-1], pieces.first[1:], strict=True)]


@given(TEXTS)
def test_words_are_what_stands_between_white_space(texts: list[str]) -> None:
    assert strings(words(*joined(texts))) == [text.replace("\u200b", " ").split() for text in texts]


@given(TEXTS)
def test_plain_words_have_no_punctuation(texts: list[str]) -> None:
    wanted = [re.findall(r"(?:\w|[\u093e\u0301])+", text) for text in texts]
    assert strings(plain_words(*joined(texts))) == wanted


@given(TEXTS)
def test_lines_and_paragraphs_are_those_of_split(texts: list[str]) -> None:
    data, offsets = joined(texts)
    assert strings(lines(data, offsets)) == [[line for line in text.split("\n") if line] for text in texts]
    said = words(data, offsets)
    clean = [text.replace("\u200b", " ") for text in texts]
    trimmed = [[line.strip() for line in text.split("\n") if line.strip()] for text in clean]
    assert [
        [line.replace("\u200b", " ") for line in found] for found in strings(trimmed_lines(said))
    ] == trimmed
    parts = [[part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()] for text in clean]
    assert [[part.replace("\u200b", " ") for part in found] for found in strings(paragraphs(said))] == parts


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("我们在海边看见灯塔。", "我 们 在 海 边 看 见 灯 塔。"),
        ("「好」他说 Python文件2019年", "「 好」 他 说 Python 文 件 2019 年"),
        ("กำลังกินข้าว", "ก ำ ลั ง กิ น ข้ า ว"),
        ("ភាសាខ្មែរ", "ភា សា ខ្ មែ រ"),
        ("コーヒーを飲む", "コ ー ヒ ー を 飲 む"),
        ("한국어는 띄어쓰기를", "한국어는 띄어쓰기를"),
        ("བོད་ཡིག", "བོད ཡིག"),
        ("𠀀𠀁 x", "𠀀 𠀁 x"),
    ],
)
def test_scripts_without_spaces_have_a_word_per_character(text: str, wanted: str) -> None:
    assert strings(words(*joined([text]))) == [wanted.split(" ")]


def test_scripts_without_spaces_are_those_that_unicode_names() -> None:
    four = "THAI", "LAO", "MYANMAR", "KHMER", "TAI LE", "NEW TAI LUE", "TAI THAM", "TAI VIET"
    two = "CJK UNIFIED", "CJK COMPATIBILITY", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "BOPOMOFO"
    odd = "IDEOGRAPHIC", "VERTICAL", "MASU MARK"
    for point in range(0x10000):
        name = unicodedata.name(chr(point), "")
        if unicodedata.category(chr(point))[0] == "L" and not name.startswith(odd):
            letters = 4 if name.startswith(four) else 2 if name.startswith(two) else 0
            assert tables()["unspaced"][point] == letters, name


@given(ANY)
def test_code_points_and_classes_are_those_of_python(text: str) -> None:
    data, _ = joined([text])
    first = np.flatnonzero(data & 0xC0 != 0x80)
    assert code_points(data, first).tolist() == [min(ord(char), 0x20000) for char in text]
    assert before(data, np.append(first, len(data))[1:]).tolist() == first.tolist()
    small = "".join(char for char in text if ord(char) < 0x20000)
    data, _ = joined([small])
    classes = {"L": 1, "M": 1, "N": 2}
    wanted = [classes.get(unicodedata.category(char)[0], 0) for char in small]
    assert content(data)[data & 0xC0 != 0x80].tolist() == wanted
    assert not content(data)[data & 0xC0 == 0x80].any()


@given(st.lists(ANY, max_size=6))
def test_any_text_at_all_is_cut_into_whole_characters(texts: list[str]) -> None:
    data, offsets = joined(texts)
    for cut in (words, plain_words, lines):
        pieces = cut(data, offsets)
        assert [len(found) for found in strings(pieces)] == pieces.counts.tolist()
        assert [len(piece) for found in strings(pieces) for piece in found] == pieces.chars.tolist()


@given(TEXTS)
def test_equal_words_have_equal_hashes_wherever_they_stand(texts: list[str]) -> None:
    pieces = words(*joined(texts))
    said = [word for found in strings(pieces) for word in found]
    assert pieces.hashes.tolist() == hashes_of(said).tolist()
    assert len(set(pieces.hashes.tolist())) == len(set(said))
    repeated = [word in found[:at] for found in strings(pieces) for at, word in enumerate(found)]
    assert pieces.repeated.tolist() == repeated


def test_hashes_are_the_same_in_every_run_and_tell_long_pieces_apart() -> None:
    assert hashes_of(["", "a", "lighthouse"]).tolist() == [0, 4635109890537377425, 1543156570253421762]
    sizes = [1, 7, 8, 9, 16, 1023, 1024, 1025, 5000]
    several = ["x" * size for size in sizes] + ["x" * (size - 1) + "y" for size in sizes]
    assert len(set(hashes_of(several).tolist())) == len(several)


def test_lines_are_the_same_if_their_words_are() -> None:
    said = words(*joined(["one  two\none two\none\ttwo \ntwo one\nonetwo\n\none\ntwo"]))
    found = trimmed_lines(said)
    assert found.repeated.tolist() == [False, True, True, False, False, False, False]
    assert found.word_counts.tolist() == [2, 2, 2, 2, 1, 1, 1]


@given(TEXTS, st.integers(1, 4))
def test_ngrams_are_all_runs_of_words_within_a_document(texts: list[str], n: int) -> None:
    pieces = words(*joined(texts))
    hashes, first = ngrams(pieces, n)
    said = [word for found in strings(pieces) for word in found]
    wanted, at = [], 0
    for found in strings(pieces):
        wanted += list(range(at, at + max(len(found) - n + 1, 0)))
        at += len(found)
    assert first.tolist() == wanted
    runs = [tuple(said[at : at + n]) for at in first]
    by_hash = defaultdict(set)
    for value, run in zip(hashes.tolist(), runs, strict=True):
        by_hash[value].add(run)
    assert all(len(run) == 1 for run in by_hash.values()) and len(by_hash) == len(set(runs))


@given(st.lists(st.integers(0, 9).map(lambda number: number * 0x1234567890ABCDEF % 2**64), max_size=50))
def test_groups_bring_equal_keys_together_the_earliest_first(numbers: list[int]) -> None:
    order, first = groups(np.array(numbers, np.uint64))
    assert sorted(order.tolist()) == list(range(len(numbers)))
    found = [part.tolist() for part in np.split(order, first[1:])] if len(first) else []
    assert all(part == sorted(part) and len({numbers[at] for at in part}) == 1 for part in found)
    assert len(found) == len(set(numbers))


def test_the_end_of_a_sentence_may_be_quoted() -> None:
    text = 'plain. said." (so?) 「好。」 «да!» है। no, a… .) ." . x." ok.)) ؟'
    ends = words(*joined([text])).sentence_end.tolist()
    assert [chr(end) if end else "" for end in ends] == [
        *(".", ".", "?", "", "。", "!", "।", "", "", ".", ".", ".", ".", "", "؟"),
    ]
    assert all(unicodedata.category(mark) == "Po" for mark in SENTENCE_ENDS)


def test_a_position_is_in_one_piece_or_none() -> None:
    pieces = words(*joined(["ab c", " d"]))
    assert pieces.at(np.arange(6)).tolist() == [0, 0, -1, 1, -1, 2]
    assert stretches(*joined(["aab", "ab"]), mask=joined(["aabab"])[0] == ord("a")).sizes.tolist() == [2, 1]


@pytest.mark.parametrize(
    "text", ["", "x" * 10_000_000, "\n" * 5_000_000, "a\n" * 1_000_000, "中" * 1_000_000]
)
def test_time_grows_with_the_text_and_no_faster(text: str) -> None:
    began = time.process_time()
    pieces = words(*joined([text]))
    assert len(pieces.hashes) == len(trimmed_lines(pieces).word) - 1 or "中" in text
    assert paragraphs(pieces).repeated.sum() == 0
    assert time.process_time() - began < 5
