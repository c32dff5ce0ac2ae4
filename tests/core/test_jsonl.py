"""JSON Lines are read line feed by line feed, with the place of an error."""

import json
from pathlib import Path

import pytest

from groundup.core.jsonl import parse_lines, read_jsonl


def test_line_separators_inside_strings_do_not_end_a_line(tmp_path: Path) -> None:
    values = [{"path": "a\u2028b\u0085c"}, {"path": "d\re"}, 3]
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n".join(json.dumps(value, ensure_ascii=False) for value in values), encoding="utf-8")
    assert list(read_jsonl(path)) == values


def test_an_invalid_line_is_named_or_skipped(tmp_path: Path) -> None:
    path = tmp_path / "torn.jsonl"
    path.write_bytes(b'{"step": 1}\n\xff\n{"step": 2}\n{"ste')
    with pytest.raises(ValueError, match=r"torn\.jsonl, line 2: not JSON"):
        list(read_jsonl(path))
    assert list(read_jsonl(path, skip_invalid=True)) == [{"step": 1}, {"step": 2}]


def test_lines_come_from_any_stream() -> None:
    assert list(parse_lines([b"1\n", b" \n", b"[2]\r\n"])) == [1, [2]]
