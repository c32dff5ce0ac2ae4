"""JSON lines, CSV and Parquet: which column is the text, and what becomes of rows that can't be used."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from format_helpers import PROSE, parquet, read, reasons, texts
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions

# JSON lines


def test_json_lines_keep_separators_inside_strings_and_name_bad_lines() -> None:
    odd = json.dumps({"text": "one\u2028two"}, ensure_ascii=False)
    lines = [
        odd,
        "",
        "[1]",
        '{"text": 5}',
        "{",
        '{"text": " "}',
        '{"text": NaN}',
        '{"n": ' + "9" * 5000 + "}",
    ]
    found = read("a.jsonl", "\r\n".join(lines).encode())
    assert found[0] == ExtractedText("one\u2028two", "1")
    no_text, bad = "no_text_field", "bad_json"
    assert [(position, reason) for position, _, reason in reasons(found)] == [
        ("3", no_text), ("4", no_text), ("5", bad), ("6", "empty"), ("7", no_text), ("8", bad)
    ]  # fmt: skip


def test_a_hostile_line_is_noted_and_its_neighbours_are_read() -> None:
    hostile = {
        b"[" * 100_000: "bad_json",
        b'{"a":' * 100_000: "bad_json",
        b'{"text": "' + b"x" * 10_000_000 + b'"}': "line_too_long",
        b'{"text": "a\x00b"}': "bad_json",
        b'{"text": "' + b"\\u0000" * 50 + b'"}': "binary",
        b'{"text": "Caf\xe9 and na\xefve"}': "decoded_as_cp1252",
        '{"text": "Größe \xff"}'.encode().replace("ÿ".encode(), b"\xff"): "invalid_utf8_replaced",
        b'{"text": "lone \\ud800"}': "lone_surrogates_replaced",
        b"\x00\x00\x00": "bad_json",
        b'{"text": "one \\u0000 in ' + b"x" * 200 + b'"}': "nul_bytes_removed",
    }
    for line, reason in hostile.items():
        found = read("a.jsonl", b'{"text": "before"}\n' + line + b'\n{"text": "after"}')
        assert reasons(found)[0][0::2] == ("2", reason), line[:40]
        assert found[0] == ExtractedText("before", "1") and found[-1] == ExtractedText("after", "3")


def test_fields_are_found_by_name_also_within_objects() -> None:
    record = {"body": {"raw": "x"}, "a.b": "y", "meta": {"licence": "CC0", "lang": None, "url": 7}}
    fields = {"text": "body.raw", "licence": "meta.licence", "language": "meta.lang", "path": "meta.url"}
    options = ReadOptions(fields=fields)
    assert read("a.jsonl", json.dumps(record).encode(), options) == [ExtractedText("x", "1", "7", "CC0")]
    assert read("a.jsonl", json.dumps(record).encode(), ReadOptions(fields={"text": "a.b"})) == [
        ExtractedText("y", "1")
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_of_json_lines_are_understood(encoding: str) -> None:
    data = '{"text": "größe"}\r\n{"text": "東京"}\r\n'.encode(encoding)
    assert [text.text for text in texts(read("a.jsonl", data))] == ["größe", "東京"]


def test_lines_are_found_wherever_chunks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from groundup.text.ingest.formats import jsonl

    data = b"\n".join(json.dumps({"text": "x" * (n % 7)} if n % 7 else {}).encode() for n in range(200))
    whole = read("a.jsonl", data)
    for size in (1, 2, 7, 64):
        monkeypatch.setattr(jsonl, "_CHUNK", size)
        assert read("a.jsonl", data) == whole


# CSV


def test_a_table_is_read_by_its_column_names_whatever_divides_it() -> None:
    rows = 'n{0}text{0}licence\r\n1{0}"one\r\nline, and; more\t| ""so"""{0}CC0\r\n\r\n2{0}two{0}\r\n'
    options = ReadOptions(fields={"text": "text", "licence": "licence"})
    for name, delimiter in (("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t"), ("a.csv", "|")):
        assert read(name, b"\xef\xbb\xbf" + rows.format(delimiter).encode(), options) == [
            ExtractedText('one\nline, and; more\t| "so"', "1", "", "CC0"),
            ExtractedText("two", "2"),
        ]


def test_bad_rows_are_noted_and_the_rest_is_read() -> None:
    prose = PROSE.replace(",", "") * 3
    data = b'text,n\nfine,1\nshort\nlong,1,2\n"a"b,3\n,4\nnul\x00,5\nnul\x00 in ' + prose.encode()
    data += ",6\nGröße ".encode() + b'\xff,7\nlast,8\n"never closed,9\nlost,10'
    found = read("a.csv", data)
    assert [text.text for text in texts(found)] == ["fine", "nul", "nul in " + prose, "Größe \ufffd", "last"]
    assert [(position, reason) for position, _, reason in reasons(found)] == [
        ("2", "bad_row"), ("3", "bad_row"), ("4", "bad_row"), ("5", "empty"), ("6", "nul_bytes_removed"),
        ("7", "nul_bytes_removed"), ("8", "invalid_utf8_replaced"), ("10", "bad_row"),
    ]  # fmt: skip


def test_a_table_in_another_encoding_is_read_in_it() -> None:
    data = "text,n\nШирокая электрификация южных губерний,1\nдаст мощный толчок,2\n".encode("cp1251")
    found = read("a.csv", data)
    assert reasons(found) == [("", "changed", "decoded_as_cp1251")]
    assert texts(found)[1].text == "даст мощный толчок"


def test_a_table_without_the_column_says_which_there_are() -> None:
    for name, data in (("a.csv", b"body,n\nx,1"), ("a.parquet", parquet(body=["x"], n=[1]))):
        (note,) = read(name, data)
        assert isinstance(note, ReadIssue) and note.reason == "no_text_field" and "body, n" in note.detail
    (note,) = read("a.parquet", parquet(text=[1]))
    assert isinstance(note, ReadIssue) and (note.reason, note.detail) == (
        "no_text_field",
        "column 'text' holds int64, not text",
    )


# Parquet


def test_parquet_is_read_row_by_row_from_columns_of_any_kind_of_string() -> None:
    told = [f"{PROSE}{n}" for n in range(250)]
    for column in (pa.array(told), pa.array(told, pa.large_string()), pa.array(told).dictionary_encode(),
                   pa.array(told).cast(pa.binary())):  # fmt: skip
        found = read("a.parquet", parquet(n=list(range(250)), text=column))
        assert found == [ExtractedText(text, str(n)) for n, text in enumerate(told, 1)]
    nested = parquet(meta=[{"raw": "x", "id": 3}, {"raw": None, "id": 4}], licence=["CC0", None])
    options = ReadOptions(
        fields={"text": "meta.raw", "path": "meta.id", "licence": "licence", "language": "no"}
    )
    assert read("a.parquet", nested, options) == [
        ExtractedText("x", "1", "3", "CC0"),
        ReadIssue("rejected", "empty", "2"),
    ]
    assert read("a.parquet", parquet(**{"a.b": ["x"]}), ReadOptions(fields={"text": "a.b"})) == [
        ExtractedText("x", "1")
    ]


def test_strings_in_parquet_that_are_no_utf8_are_decoded() -> None:
    broken = pa.array([b"Gr\xf6\xdfe und H\xf6he", b"fine"]).view(pa.string())
    found = read("a.parquet", parquet(text=broken))
    assert [text.text for text in texts(found)] == ["Größe und Höhe", "fine"]
    assert reasons(found) == [("1", "changed", "decoded_as_cp1252")]


def test_a_damaged_row_group_is_lost_alone() -> None:
    data = bytearray(parquet(text=[f"{n} {hash((n, 1))}" for n in range(300)]))
    metadata = pq.read_metadata(io.BytesIO(data))
    at = metadata.row_group(1).column(0).data_page_offset
    data[at : at + 40] = b"\xff" * 40
    found = read("a.parquet", bytes(data))
    assert [text.position for text in texts(found)] == [str(n) for n in [*range(1, 101), *range(201, 301)]]
    assert reasons(found) == [("101-200", "rejected", "damaged_parquet")]
    for torn in (bytes(data)[:-20], b"PAR1" + bytes(50), b"PAR1"):
        assert reasons(read("a.parquet", torn)) == [("", "rejected", "damaged_parquet")]


def test_a_bomb_in_parquet_is_not_opened() -> None:
    found = read("a.parquet", parquet(text=["a" * (32 << 20)], n=[1]), ReadOptions(max_expansion=20))
    assert reasons(found) == [("group 1", "rejected", "expands_too_much")]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b"\n \n\n"),
        ("a.csv", b"text,n\n"),
        ("a.parquet", parquet(text=pa.array([], pa.string()))),
    ],
)
def test_a_table_without_rows_is_said_to_be_empty(name: str, data: bytes) -> None:
    assert reasons(read(name, data)) == [("", "rejected", "empty")]
