"""Every layout that people store conversations, preferences and prompts in gives the records that it means."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from dataset_helpers import lines, read

from groundup.align.data.datasets.conversations import Conversations
from groundup.align.data.datasets.preferences import Preferences
from groundup.align.data.datasets.prompts import Prompts
from groundup.core.records import Conversation, LabelledResponse, Message, Prompt, Ranking

U, A, S = (lambda text, role=role: Message(role, text) for role in ("user", "assistant", "system"))
CALL = {"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
CALLED = '{"name": "f", "arguments": {"x": 1}}'
TREE = {
    "role": "prompter", "text": "q", "replies": [
        {"role": "assistant", "text": "worse", "rank": 1, "replies": []},
        {"role": "assistant", "text": "better", "rank": 0, "replies": [
            {"role": "prompter", "text": "more", "rank": 0, "replies": [
                {"role": "assistant", "text": "end", "rank": None, "replies": []}]}]},
        {"role": "assistant", "text": "gone", "rank": 2, "deleted": True, "replies": []}]}  # fmt: skip

CONVERSATIONS: list[tuple[dict[str, Any], tuple[Message, ...]]] = [
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, (U("q"), A("a"))),
    ({"messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}]},
                   {"role": "assistant", "content": "a", "weight": 0}, {"role": "user", "content": "r"},
                   {"role": "assistant", "content": "b", "weight": 1}]},
     (S("s"), U("q"), Message("assistant", "a", in_loss=False), U("r"), A("b"))),
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [CALL]},
                   {"role": "tool", "name": "f", "content": "3"}, {"role": "assistant", "content": "a"}]},
     (U("q"), A(CALLED), Message("tool", "3", name="f"), A("a"))),
    ({"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": CALLED},
                        {"from": "observation", "value": "3"}, {"from": "gpt", "value": "a"}], "system": "s"},
     (S("s"), U("q"), A(CALLED), Message("tool", "3"), A("a"))),
    ({"instruction": "i", "input": "x", "output": "a", "system": "s", "history": [["q1", "a1"]]},
     (S("s"), U("q1"), A("a1"), U("i\n\nx"), A("a"))),
    ({"instruction": "i", "input": "", "output": "a"}, (U("i"), A("a"))),
    ({"prompt": "q", "completion": "a"}, (U("q"), A("a"))),
    ({"question": "q", "answer": "a"}, (U("q"), A("a"))),
    ({"input": "q", "output": "a"}, (U("q"), A("a"))),
    ({"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
     (U("q"), A("a"))),
    ({"prompt": TREE}, (U("q"), A("better"), U("more"), A("end"))),
]  # fmt: skip


@pytest.mark.parametrize(("row", "messages"), CONVERSATIONS)
def test_a_conversation_is_read(row: dict[str, Any], messages: tuple[Message, ...], tmp_path: Path) -> None:
    (record,), entries = read(Conversations(paths=(lines(tmp_path, [row]),)))
    assert isinstance(record, Conversation) and record.messages == messages
    assert not entries


def test_an_instruction_with_several_instances_gives_a_conversation_each(tmp_path: Path) -> None:
    row = {
        "instruction": "Add.",
        "instances": [{"input": "1 2", "output": "3"}, {"input": "2 2", "output": "4"}],
    }
    records, _ = read(Conversations(paths=(lines(tmp_path, [row]),)))
    assert [record.messages for record in records] == [(U("Add.\n\n1 2"), A("3")), (U("Add.\n\n2 2"), A("4"))]
    assert len({record.id for record in records}) == 2


PROMPT = [{"role": "user", "content": "q"}]
BOTH = [[*PROMPT, {"role": "assistant", "content": text}] for text in ("good", "bad")]
RANKINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"prompt": "q", "chosen": "good", "rejected": "bad"}, {}),
    ({"prompt": PROMPT, "chosen": BOTH[0][1:], "rejected": BOTH[1][1:], "margin": 2}, {"margin": 2.0}),
    ({"chosen": BOTH[0], "rejected": BOTH[1], "score_chosen": 9, "score_rejected": 4},
     {"margin": 5.0, "scores": (9.0, 4.0)}),
    ({"prompt": "q", "chosen": BOTH[0], "rejected": BOTH[1]}, {}),
    ({"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"}, {}),
    ({"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "good"},
      "rejected": {"from": "gpt", "value": "bad"}}, {}),
    ({"instruction": "q", "input": "", "output": "x", "chosen": "good", "rejected": "bad"}, {}),
    ({"conversation_a": BOTH[0], "conversation_b": BOTH[1], "winner": "model_a"}, {}),
    ({"conversation_a": BOTH[0], "conversation_b": BOTH[1], "winner": "tie (bothbad)"}, {"ranks": (1, 1)}),
    ({"prompt": "q", "responses": ["good", "bad"], "scores": [0.9, 0.1]}, {"scores": (0.9, 0.1)}),
    ({"context": PROMPT, "completions": [{"rank": 0, "completion": BOTH[0][1:]},
                                       {"rank": 1, "completion": "bad"}]}, {}),
    ({"prompt": "q", "answers": [{"answer": "good", "rank": 1}, {"answer": "bad", "rank": 3}], "annotator": "p"},
     {"annotator": "p"}),
]  # fmt: skip


@pytest.mark.parametrize(("row", "more"), RANKINGS)
def test_a_ranking_is_read(row: dict[str, Any], more: dict[str, Any], tmp_path: Path) -> None:
    (record,), entries = read(Preferences(paths=(lines(tmp_path, [row]),)))
    assert isinstance(record, Ranking) and not entries
    assert record.prompt == (U("q"),) and record.responses == ((A("good"),), (A("bad"),))
    expected = {"ranks": (1, 2), "margin": None, "scores": None, "annotator": ""} | more
    assert {name: getattr(record, name) for name in expected} == expected


def test_a_ranking_of_four_keeps_its_ties(tmp_path: Path) -> None:
    row = {"prompt": "q", "responses": ["a", "b", "c", "d"], "ranks": [4, 2, 2, 9]}
    (record,), _ = read(Preferences(paths=(lines(tmp_path, [row]),)))
    assert isinstance(record, Ranking)
    assert record.ranks == (2, 1, 1, 3) and len(record.pairs()) == 5 and record.ties() == [(1, 2)]


def test_a_vote_of_unstated_meaning_is_refused_until_it_is_named(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "response 1": "x", "response 2": "y", "label": vote} for vote in (0, 1, 2, 7)]
    paths = (lines(tmp_path, rows),)
    records, entries = read(Preferences(paths=paths))
    assert not records and {entry.reason for entry in entries} == {"vote_of_unstated_meaning"}
    records, entries = read(Preferences(paths=paths, votes={"0": "a", "1": "b", "2": "tie"}))
    assert [record.ranks for record in records] == [(1, 2), (2, 1), (1, 1)]
    assert [(entry.reason, "line 4" in entry.detail) for entry in entries] == [("bad_vote", True)]
    assert len(read(Preferences(paths=paths, votes={"0": "a", "1": "b", "2": "tie"}, ties="drop"))[0]) == 2


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "completion": "a", "label": True},
        {"messages": [*PROMPT, {"role": "assistant", "content": "a"}], "kto_tag": 1},
    ],
)
def test_a_labelled_response_is_read(row: dict[str, Any], tmp_path: Path) -> None:
    (record,), _ = read(Preferences(paths=(lines(tmp_path, [row]),)))
    assert isinstance(record, LabelledResponse)
    assert (record.prompt, record.response, record.good) == ((U("q"),), (A("a"),), True)


def test_every_message_of_a_tree_with_ranked_replies_is_a_ranking(tmp_path: Path) -> None:
    (record,), _ = read(Preferences(paths=(lines(tmp_path, [{"prompt": TREE}]),)))
    assert isinstance(record, Ranking)
    assert record.responses == ((A("worse"),), (A("better"),)) and record.ranks == (2, 1)


@pytest.mark.parametrize(
    ("row", "answer", "verifier", "metadata"),
    [
        ({"question": "2+2?", "answer": "It is 4.\n#### 4"}, "4", "", {}),
        ({"prompt": "2+2?", "solution": 4, "level": 3}, "4", "", {"level": 3}),
        ({"prompt": [{"role": "user", "content": "2+2?"}], "data_source": "math",
          "reward_model": {"style": "rule", "ground_truth": "4"}}, "4", "math", {}),
        ({"messages": [{"role": "user", "content": "2+2?"}], "ground_truth": "4", "dataset": "gsm8k"},
         "4", "gsm8k", {}),
        ({"prompt": "2+2?"}, None, "", {}),
    ],
)  # fmt: skip
def test_a_prompt_is_read(
    row: dict[str, Any], answer: str | None, verifier: str, metadata: dict[str, Any], tmp_path: Path
) -> None:
    (record,), entries = read(Prompts(paths=(lines(tmp_path, [row]),)))
    assert isinstance(record, Prompt) and not entries
    assert (record.messages, record.answer, record.verifier, record.metadata) == (
        (U("2+2?"),), answer, verifier, metadata
    )  # fmt: skip


def test_columns_with_other_names_are_named_in_the_table(tmp_path: Path) -> None:
    row = {"ask": {"text": "q"}, "reply": "a"}
    paths = (lines(tmp_path, [row, {"reply": "a"}]),)
    (record,), (entry,) = read(
        Conversations(paths=paths, fields={"prompt": "ask.text", "completion": "reply"})
    )
    assert isinstance(record, Conversation) and record.messages == (U("q"), A("a"))
    assert (
        entry.reason == "no_such_column"
        and "rows.jsonl, line 2: there is no column `ask.text`" in entry.detail
    )


def test_containers_and_globs(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "completion": f"a{n}"} for n in range(5)]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text))
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(text))
    (tmp_path / "c.json").write_text(json.dumps(rows, indent=1))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    records, entries = read(Conversations(paths=(str(tmp_path / "*"),)))
    assert len(records) == 20 and not entries
    assert len({record.id for record in records}) == 20
    (tmp_path / "e.html").write_text("<html><body>no rows</body></html>")
    _, (entry,) = read(Conversations(paths=(str(tmp_path / "*"),)))
    assert entry.reason == "no_rows" and "JSON lines, JSON arrays and Parquet" in entry.detail
