"""Rows with a text, rows that are conversations, and rows that are neither: in every format that has rows."""

import csv
import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from format_helpers import PROSE, read, reasons, texts
from groundup.core.errors import DataError
from groundup.text.ingest.formats.rows import MAX_VALUES, parse_json
from groundup.text.ingest.types import ReadIssue, ReadOptions
from text_helpers import run_acquire

Rows = list[dict[str, Any]]


def as_jsonl(rows: Rows) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in rows)


def as_parquet(rows: Rows) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


WRITERS: dict[str, Callable[[Rows], bytes]] = {
    "a.jsonl": as_jsonl,
    "lines.json": as_jsonl,
    "compact.json": lambda rows: json.dumps(rows, separators=(",", ":")).encode(),
    "indented.json": lambda rows: json.dumps(rows, indent=2).encode(),
    "array.jsonl": lambda rows: json.dumps(rows).encode(),
    "objects.jsonl": lambda rows: "\n".join(json.dumps(row, indent=1) for row in rows).encode(),
    "utf16.json": lambda rows: json.dumps(rows, ensure_ascii=False).encode("utf-16"),
    "a.parquet": as_parquet,
}
TALK = "User: Why is the sky blue?\n\nAssistant: It scatters blue light."
LAYOUTS: dict[str, dict[str, Any]] = {
    "messages": {"id": 7, "messages": [{"role": "user", "content": "Why is the sky blue?"},
                                       {"role": "assistant", "content": "It scatters blue light."}]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Why is the sky blue?"}]},
                           {"role": "assistant", "content": [{"type": "text", "text": "It scatters blue light."}]}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "Why is the sky blue?"},
                                   {"from": "gpt", "value": "It scatters blue light."}]},
    "alpaca": {"instruction": "Why is the sky blue?", "input": "", "output": "It scatters blue light."},
    "dolly": {"instruction": "Why is the sky blue?", "context": "", "response": "It scatters blue light."},
    "prompt": {"prompt": "Why is the sky blue?", "completion": "It scatters blue light."},
    "question": {"id": "q1", "question": "Why is the sky blue?", "answer": "It scatters blue light."},
    "squad": {"question": "Why is the sky blue?", "answers": {"text": ["It scatters blue light."]}},
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_rows_with_a_text_are_read_from_every_layout_of_json(name: str) -> None:
    rows = [{"n": n, "text": f'{PROSE} {n} " ] }} \\ Größe'} for n in range(300)]
    items = read(name, WRITERS[name](rows))
    assert [text.text for text in texts(items)] == [row["text"] for row in rows]
    assert [text.position for text in texts(items)] == [
        text.position for text in sorted(texts(items), key=lambda t: int(t.position))
    ]
    positions = [text.position for text in texts(items)]
    again = read(name, WRITERS[name](rows), skip=250)
    assert [text.position for text in texts(again)] == positions[250:]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_conversations_are_read_as_plain_text(name: str, layout: str) -> None:
    items = read(name, WRITERS[name]([LAYOUTS[layout]] * 3))
    assert [text.text for text in texts(items)] == [TALK] * 3, reasons(items)


def test_conversations_in_a_csv_are_read(tmp_path: Path) -> None:
    for layout in ("alpaca", "dolly", "prompt", "question"):
        out = io.StringIO()
        writer = csv.DictWriter(out, list(LAYOUTS[layout]))
        writer.writeheader()
        writer.writerows([LAYOUTS[layout]] * 3)
        assert [text.text for text in texts(read("a.csv", out.getvalue().encode()))] == [TALK] * 3


def test_speakers_context_and_odd_messages() -> None:
    row = {"messages": [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}, {"role": "tool", "content": "42"},
        "rubbish", {"role": "narrator", "content": "Later."}, {"content": "No role."},
    ]}  # fmt: skip
    (text,) = texts(read("a.jsonl", as_jsonl([row])))
    assert text.text == "System: Be brief.\n\nUser: Hi\n\nTool: 42\n\nNarrator: Later.\n\nNo role."
    row = {"question": "Who?", "context": "Ann did it.", "answer": "Ann"}
    assert texts(read("a.jsonl", as_jsonl([row])))[0].text == "User: Who?\n\nAnn did it.\n\nAssistant: Ann"
    assert reasons(read("a.jsonl", as_jsonl([{"messages": []}]))) == [("1", "rejected", "empty")]


@pytest.mark.parametrize("name", [*WRITERS, "a.csv"])
@pytest.mark.parametrize("row", [{"body": "x", "id": 1}, {"prompt": "x", "chosen": "y", "rejected": "z"}])
def test_rows_without_a_text_are_refused_with_their_columns(name: str, row: dict[str, Any]) -> None:
    if name == "lines.json":
        return  # JSON that shows no text field is read as what it is: a text file
    data = (
        (",".join(row) + "\n" + ",".join(map(str, row.values()))).encode()
        if name == "a.csv"
        else WRITERS[name]([row])
    )
    issues = [
        item for item in read(name, data) if isinstance(item, ReadIssue) and item.reason == "no_text_field"
    ]
    assert len(issues) == 1 and issues[0].outcome == "rejected"
    assert f"rows have: {', '.join(row)}; set fields.text = " in issues[0].detail


def test_a_named_column_is_not_replaced_by_a_conversation() -> None:
    options = ReadOptions(fields={"text": "output"})
    (text,) = texts(read("a.jsonl", as_jsonl([LAYOUTS["alpaca"]]), options))
    assert text.text == "It scatters blue light."
    items = read("a.jsonl", as_jsonl([LAYOUTS["messages"]]), options)
    assert not texts(items)


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_of_a_cut_or_broken_array_the_whole_objects_are_kept(cut: int) -> None:
    data = json.dumps([{"text": f"{PROSE}{n}"} for n in range(20)]).encode()
    items = read("a.json", data[:-cut])
    assert [text.text for text in texts(items)][:15] == [f"{PROSE}{n}" for n in range(15)]
    if cut > 1:
        assert [reason for _, _, reason in reasons(items)] == ["bad_json"]
    broken = data.replace(b'{"text": "', b'{"text": oops "', 1)
    items = read("a.json", broken)
    assert len(texts(items)) == 19 and [reason for _, _, reason in reasons(items)] == ["bad_json"]


def test_an_ordinary_json_file_stays_a_text_file() -> None:
    for data in (
        b'{\n "name": "x",\n "text": "one"\n}',
        b'{"compilerOptions": {"strict": true}}',
        b"[1, 2, 3]",
        b'["a"]',
    ):
        (text,) = texts(read("package.json", data))
        assert text.text == data.decode()


def test_a_document_of_too_many_values_is_refused_but_a_long_text_is_not() -> None:
    with pytest.raises(ValueError, match="values; at most"):
        parse_json("[" + "[]," * MAX_VALUES + "[]]")
    prose = "one, two [three] {four}, " * MAX_VALUES
    assert parse_json(json.dumps({"text": prose}))["text"] == prose
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json("[" * 400_000)


# Messages


def test_when_everything_is_rejected_the_message_names_file_columns_and_log(tmp_path: Path) -> None:
    (tmp_path / "chats.jsonl").write_bytes(as_jsonl([{"body": "x", "id": n} for n in range(3)]))
    (tmp_path / "x.bin").write_bytes(bytes(range(256)))
    folder = tmp_path / "ws" / "artifacts" / "ingest-1"
    with pytest.raises(DataError) as caught:
        run_acquire(folder, tmp_path / "chats.jsonl", tmp_path / "x.bin")
    message = str(caught.value)
    assert "no_text_field (3), binary (1)" in message and "rows have: body, id" in message
    assert "chats.jsonl#1" in message
    log = Path(re.search(r"all are listed in (\S+\.jsonl)", message)[1])  # type: ignore[index]
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["reason"] for entry in entries] == ["no_text_field"] * 3 + ["binary"]


def test_messages_about_lost_input_name_a_file_and_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from groundup.text.ingest.messages import rejects_messages

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.txt").write_text(PROSE)
    (tmp_path / "in" / "bad.bin").write_bytes(bytes(range(256)))
    (tmp_path / "in" / ".gitignore").write_text("*.log\n")
    (tmp_path / "in" / "x.log").write_text("x")
    (tmp_path / "in" / "a.txt.gz").write_bytes(gzip.compress(PROSE.encode()) + b"rubbish")
    built = run_acquire(tmp_path / "ingest-1", tmp_path / "in")
    rejected, partly, left_out = rejects_messages(built.path, built.metrics)
    assert rejected.startswith(
        "rejected: binary (1); for example bad.bin: binary; all are listed in rejects/"
    )
    assert partly.startswith("read in part: damaged_gzip (1); for example a.txt.gz: byte ")
    assert left_out == "left out: gitignored (1); skip_ignored = false reads them"
