"""`groundup inspect --data`: samples with their loss mask, and the rejected rows."""

import json
from pathlib import Path

import pytest
from dataset_helpers import lines
from test_dedup_records import built

from artifact_helpers import published
from groundup.align.data.datasets.conversations import Conversations
from groundup.align.data.datasets.preferences import Preferences
from groundup.align.data.inspect_samples import show_samples
from groundup.core.errors import DataError
from groundup.core.stage import Artifact


@pytest.fixture
def stages(tmp_path: Path) -> dict[str, Artifact]:
    chats = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "seen", "weight": 0},
                      {"role": "user", "content": "r"}, {"role": "assistant", "content": "learned"}]},
        {"messages": []},
    ]  # fmt: skip
    ranked = [{"prompt": "p", "responses": ["worst", "best"], "ranks": [2, 1]}]
    datasets = (
        Conversations(name="chat", paths=(lines(tmp_path, chats),), held_out=0),
        Preferences(name="ranked", paths=(lines(tmp_path, ranked, "ranked.jsonl"),), held_out=0),
    )
    _, metrics, _ = built(tmp_path, *datasets)
    return {"data": published(tmp_path / "artifacts" / "data.part", "data", "alignment_data", metrics)}


def test_samples_show_the_roles_the_order_and_the_rejected_rows(
    stages: dict[str, Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    show_samples(stages, "all", 20, as_json=False)
    text = capsys.readouterr().out
    assert "conversations: 1 to train on, 0 held out" in text
    assert text.index("assistant: seen") < text.index("assistant: learned")
    assert text.index("rank 1") < text.index("best") < text.index("rank 2") < text.index("worst")
    assert "rejected (no_messages): rows.jsonl, line 2:" in text


def test_json_has_the_loss_mask_of_every_message(
    stages: dict[str, Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    show_samples(stages, "chat", 20, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    (sample,) = shown["samples"]
    assert [message["in_loss"] for message in sample["messages"]] == [True, False, True, True]
    assert [entry["reason"] for entry in shown["rejects"]] == ["no_messages"]


def test_an_unknown_table_is_refused_with_the_known_ones(stages: dict[str, Artifact]) -> None:
    with pytest.raises(
        DataError, match=r"--data cat: there is no such table\. The run has: chat, ranked, all"
    ):
        show_samples(stages, "cat", 5, as_json=False)
    with pytest.raises(DataError, match="the run has no stage `data`"):
        show_samples({}, "chat", 5, as_json=False)
