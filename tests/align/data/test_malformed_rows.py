"""Malformed rows: each is rejected with its file, its line and what is wrong, and the others are read."""

from pathlib import Path
from typing import Any

import pytest
from dataset_helpers import lines, read

from groundup.align.data.datasets.conversations import Conversations
from groundup.align.data.datasets.preferences import Preferences
from groundup.align.data.datasets.prompts import Prompts
from groundup.align.data.file_rows import FileDataset

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
HUMAN, GPT = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
NOT_MESSAGES: list[Any] = [None, [], "", 5, {}, ["q"], [None], [{}], [{"role": "usr", "content": "q"}]]
NOT_TEXT: list[Any] = [None, "", "  ", 5, {"x": 1}, [], [1], [{"role": "assistant"}], True]
NOT_ROWS: list[Any] = [None, 5, "text", ["a"], [], {}, {"text": "only text"}]
IMAGE = [{"type": "image_url", "image_url": {"url": "x"}}]


def changed(row: dict[str, Any], key: str, values: list[Any]) -> list[Any]:
    return [*({**row, key: value} for value in values), {name: row[name] for name in row if name != key}]


def chat(role: str, content: str, user: dict[str, Any], answer: dict[str, Any], column: str) -> list[Any]:
    """A list of messages with one fault each."""
    faulty = [
        [user, {**answer, content: text}] for text in (None, "", " ", 5, IMAGE)
    ] + [
        [user, {**answer, role: name}] for name in (None, "robot", 3)
    ] + [
        [user], [answer], [user, answer, answer], [user, "a"], [{**user, content: ""}, answer],
        [user, {role: "system", content: "s"}, answer], [user, {**answer, "weight": 0}],
    ]  # fmt: skip
    return [*({column: messages} for messages in faulty), *({column: value} for value in NOT_MESSAGES)]


PAIR = {"prompt": "q", "chosen": "good", "rejected": "bad"}
RANKED = {"prompt": "q", "responses": ["x", "y"], "ranks": [1, 2]}
VOTED = {"prompt": "q", "response_a": "x", "response_b": "y", "winner": "a"}
LABELLED = {"prompt": "q", "completion": "a", "label": True}
ALPACA = {"instruction": "i", "input": "", "output": "a"}
COMPLETION = {"prompt": "q", "completion": "a"}
ASKED = {"prompt": "q", "answer": "a"}
FAULTY: dict[str, tuple[type[FileDataset], dict[str, Any], list[Any]]] = {
    "messages": (
        Conversations,
        {"messages": [USER, ANSWER]},
        chat("role", "content", USER, ANSWER, "messages"),
    ),
    "sharegpt": (
        Conversations,
        {"conversations": [HUMAN, GPT]},
        chat("from", "value", HUMAN, GPT, "conversations"),
    ),
    "alpaca": (
        Conversations,
        ALPACA,
        changed(ALPACA, "output", NOT_TEXT)
        + changed(ALPACA, "instruction", [None, "", 5, []])
        + [
            {**ALPACA, "history": [["q"]]},
            {**ALPACA, "input": {"x": 1}},
            {"instruction": "i", "instances": [5]},
        ]
        + NOT_ROWS,
    ),
    "completion": (
        Conversations,
        COMPLETION,
        changed(COMPLETION, "completion", NOT_TEXT) + changed(COMPLETION, "prompt", NOT_MESSAGES) + NOT_ROWS,
    ),
    "pairs": (
        Preferences,
        PAIR,
        changed(PAIR, "chosen", NOT_TEXT)
        + changed(PAIR, "rejected", NOT_TEXT)
        + [{**PAIR, "rejected": "good"}, {**PAIR, "margin": "much"}, {**PAIR, "prompt": [USER, ANSWER]}]
        + NOT_ROWS,
    ),
    "ranked": (
        Preferences,
        RANKED,
        changed(RANKED, "responses", [*NOT_TEXT, ["x"], ["x", ""], ["x", "x"], ["x", 5]])
        + changed(RANKED, "ranks", [None, [], [1], [1, "2"], [1, None], [True, False]])
        + NOT_ROWS,
    ),
    "votes": (
        Preferences,
        VOTED,
        changed(VOTED, "response_a", NOT_TEXT)
        + changed(VOTED, "winner", [None, 1, "first", "", True])
        + [{**VOTED, "response_b": "x"}, {**VOTED, "prompt": ""}]
        + NOT_ROWS,
    ),
    "labelled": (
        Preferences,
        LABELLED,
        changed(LABELLED, "completion", NOT_TEXT)
        + changed(LABELLED, "label", [None, "yes", 2, -1, 0.5, []])
        + NOT_ROWS,
    ),
    "prompts": (
        Prompts,
        ASKED,
        changed(ASKED, "prompt", NOT_MESSAGES)
        + [{**ASKED, "answer": value} for value in ([1], {"x": 1}, True, "#### ")]
        + [{"prompt": [USER, ANSWER]}, {"prompt": [ANSWER]}, {"prompt": [{"role": "system", "content": "s"}]}]
        + NOT_ROWS,
    ),
}


@pytest.mark.parametrize("name", FAULTY)
def test_every_malformed_row_is_named_by_line_and_the_others_are_read(name: str, tmp_path: Path) -> None:
    dataset, good, faulty = FAULTY[name]
    assert len(faulty) >= 20
    rows = [row for bad in faulty for row in (good, bad)]
    records, entries = read(dataset(paths=(lines(tmp_path, rows, "mine.jsonl"),)))
    rejected = {entry.id.rsplit("#")[1]: entry for entry in entries if entry.outcome == "rejected"}
    accepted = [bad for number, bad in enumerate(faulty) if str(2 * number + 2) not in rejected]
    assert accepted == []
    assert len(rejected) == len(faulty) and len(records) == len(faulty)
    for line, entry in rejected.items():
        assert entry.detail.startswith(f"mine.jsonl, line {line}: ") and entry.reason != "bad_row", entry
