"""The banner of the chat names run and model, and questions that the model was measured on."""

import json
from pathlib import Path

import pytest

from groundup.core.runtime import Runtime
from groundup.core.store import ChosenModel
from groundup.parallel.hardware import choose_hardware
from groundup.serve.banner import banner, questions_to_try
from groundup.serve.conversation import Chat

SAMPLES = [
    {"kind": "a", "question": "What is 1?", "held_out": True},
    {"kind": "a", "question": "What is 2?", "held_out": True},
    {"kind": "a", "question": "What is trained?", "held_out": False},
    {"kind": "b", "question": "x" * 500, "held_out": True},
    {"kind": "b", "question": "How is 3?", "held_out": True},
]


def test_it_names_run_model_and_three_held_out_questions(chat: Chat, tmp_path: Path) -> None:
    samples = tmp_path / "samples.json"
    samples.write_text(json.dumps(SAMPLES))
    hardware = choose_hardware(Runtime(device="cpu", compile="off", threads=1), "fp32")
    lines = banner(chat, hardware, ChosenModel(tmp_path, "mine (ppo)", samples)).splitlines()
    parameters = sum(p.numel() for p in chat.engine.model.parameters())
    assert lines[0] == f"mine (ppo): {parameters:,} parameters, context of 48 tokens, fp32 on cpu"
    assert lines[2:] == ["Questions to try:", "  What is 1?", "  How is 3?", "  What is 2?"]
    assert len(banner(chat, hardware, ChosenModel(tmp_path, "folder")).splitlines()) == 2


@pytest.mark.parametrize("text", ["", "[1]", "{}", '[{"kind": "a"}]', "[]"])
def test_a_run_without_readable_samples_has_no_questions(tmp_path: Path, text: str) -> None:
    (tmp_path / "samples.json").write_text(text)
    assert questions_to_try(tmp_path / "samples.json") == []
    assert questions_to_try(tmp_path / "missing.json") == []
