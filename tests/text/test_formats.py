"""gzip and JSON lines, whole and damaged."""

import gzip
import json

import pytest

from groundup.text.formats import Limits, texts
from groundup.text.sources import Note, Text

LIMITS = Limits(file_bytes=1 << 24, line_bytes=1 << 20, expansion=100)
TALE = "".join(f"Line {n} of a tale that goes on.\n" for n in range(20_000))


def read(path: str, data: bytes, limits: Limits = LIMITS) -> list[Text | Note]:
    return list(texts(path, data, "text", limits))


def test_gzip_of_several_members_with_padding_is_whole() -> None:
    data = gzip.compress(TALE.encode()) + gzip.compress(b"The end.") + b"\x00" * 512
    assert read("tale.txt.gz", data) == [Text(TALE + "The end.")]


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_of_a_truncated_gzip_what_came_before_is_kept(keep: float) -> None:
    data = gzip.compress(TALE.encode())
    note, text = read("tale.txt.gz", data[: int(len(data) * keep)])
    assert isinstance(note, Note) and (note.fate, note.reason) == ("changed", "damaged_gzip")
    assert isinstance(text, Text) and TALE.startswith(text.text) and len(text.text) > len(TALE) * (keep - 0.2)


def test_a_wrong_checksum_keeps_the_text_and_says_so() -> None:
    data = bytearray(gzip.compress(TALE.encode()))
    data[-6] ^= 1
    note, text = read("tale.txt.gz", bytes(data))
    assert isinstance(note, Note) and note.reason == "damaged_gzip" and text == Text(TALE)


def test_a_gzip_of_nothing_readable_goes_aside() -> None:
    (note,) = read("x.gz", b"\x1f\x8b\x08\x00garbage")
    assert isinstance(note, Note) and (note.fate, note.reason) == ("aside", "damaged_gzip")
    (note,) = read("x.gz", gzip.compress(b""))
    assert isinstance(note, Note) and note.reason == "empty"
    (note,) = read("x.gz", gzip.compress(gzip.compress(b"twice")))
    assert isinstance(note, Note) and (note.reason, note.detail) == ("unknown_format", "gzip")


def test_a_bomb_is_stopped_by_its_ratio_and_a_giant_by_its_size() -> None:
    bomb = gzip.compress(b"\n" * 8_000_000)
    (note,) = read("bomb.gz", bomb)
    assert isinstance(note, Note) and note.reason == "expands_too_much"
    assert note.value is not None and note.value <= LIMITS.expansion * len(bomb) + (1 << 20) + 1
    (note,) = read("big.gz", gzip.compress(TALE.encode()), Limits(1 << 10, 1 << 20, 100))
    assert isinstance(note, Note) and (note.reason, note.threshold) == ("too_large", 1 << 10)


def test_json_lines_keep_separators_inside_strings_and_name_bad_lines() -> None:
    lines = [
        json.dumps({"text": "one\u2028two"}, ensure_ascii=False),
        "",
        "[1]",
        '{"text": 5}',
        "{",
        '{"text": " "}',
    ]
    found = read("a.jsonl", "\r\n".join(lines).encode())
    assert found[0] == Text("one\u2028two", "1")
    notes = [(item.position, item.reason) for item in found[1:] if isinstance(item, Note)]
    assert notes == [("3", "no_text_field"), ("4", "no_text_field"), ("5", "bad_json"), ("6", "empty")]


def test_json_too_deep_to_parse_is_a_bad_line() -> None:
    (note,) = read("a.jsonl", b"[" * 200_000)
    assert isinstance(note, Note) and note.reason == "bad_json"
