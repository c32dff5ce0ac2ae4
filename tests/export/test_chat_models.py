"""Exported chat models in transformers and llama.cpp: one template, one BOS, an eos token that ends a turn."""

import json
from pathlib import Path
from typing import Any

import pytest
from decoders import PORTABLE, decoder
from transformers import AutoModelForCausalLM, AutoTokenizer

from groundup.core.errors import GroundupError
from groundup.core.records import Message
from groundup.export.gguf import export_gguf
from groundup.export.hf_import import import_huggingface
from groundup.export.huggingface import export_huggingface
from groundup.export.source import load_source
from groundup.export.verify import QUESTIONS
from groundup.export.verify_llama_cpp import LlamaCppRuntime
from groundup.model.checkpoint import save_model
from groundup.tokens.chat import prompt
from groundup.tokens.tokenizer import Tokenizer
from tiny import groundup

TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "hi"}],
    [{"role": "system", "content": "be kind"}, {"role": "user", "content": [{"type": "text", "text": "a"}]}],
    [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": "2"},
    ],
]


@pytest.fixture(scope="module")
def exported(chat_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "chat"
    groundup("export", str(chat_checkpoint), str(folder), "--verify")
    return folder


def test_verification_of_a_chat_model_in_transformers(
    chat_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groundup("export", str(chat_checkpoint), str(tmp_path / "out"), "--verify")
    report = capsys.readouterr().err
    assert "300 of 300 strings with the same ids, 20 of 20 greedy texts equal, 20 ended" in report


def test_generate_stops_by_itself(exported: Path, chat_checkpoint: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(exported), AutoModelForCausalLM.from_pretrained(exported)
    ours = Tokenizer.load(chat_checkpoint)
    assert model.config.eos_token_id == tokenizer.eos_token_id == ours.end_of_turn
    assert model.generation_config.eos_token_id == [ours.end_of_turn, ours.eos]
    turns = [{"role": "user", "content": QUESTIONS[3]}]
    ids = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert ids["input_ids"][0].tolist() == prompt([Message("user", QUESTIONS[3])], ours)
    output = model.generate(**ids, max_new_tokens=50, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(output) == "3 cats – on the <|end_of_turn|>"


def test_a_base_model_has_no_template_and_a_bos_before_each_text(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    save_model(tmp_path / "base", decoder(PORTABLE["qwen3"]), None)
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    tokenizer.save(tmp_path / "base")
    (tmp_path / "base" / "config.json").write_text(json.dumps(config | {"eos_token_id": tokenizer.eos}))
    export_huggingface(tmp_path / "base", tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs.chat_template is None and theirs.eos_token_id == tokenizer.eos
    assert theirs("the cat")["input_ids"] == [tokenizer.bos, *tokenizer.encode("the cat")]


def test_an_exported_chat_model_comes_back_with_its_own_tokenizer(
    exported: Path, chat_checkpoint: Path, tmp_path: Path
) -> None:
    for control_tokens in (False, True):
        target = tmp_path / str(control_tokens)
        import_huggingface(exported, target, control_tokens)
        for name in sorted(path.name for path in chat_checkpoint.iterdir()):
            assert (target / name).read_bytes() == (chat_checkpoint / name).read_bytes(), name


def test_llama_cpp_renders_the_template_as_transformers_does(
    exported: Path, chat_checkpoint: Path, tmp_path: Path
) -> None:
    export_gguf(chat_checkpoint, tmp_path / "model.gguf")
    runtime = LlamaCppRuntime(tmp_path / "model.gguf", load_source(chat_checkpoint).model.config, chat=True)
    theirs = AutoTokenizer.from_pretrained(exported)
    for messages in CONVERSATIONS:
        for tools in (None, [TOOL]):
            expected = theirs.apply_chat_template(
                messages, tools=tools, add_generation_prompt=True, tokenize=False
            )
            request = {"messages": messages} | ({"tools": tools} if tools else {})
            assert runtime._post("/apply-template", request)["prompt"] == expected


def test_llama_cpp_begins_a_conversation_with_one_bos(chat_checkpoint: Path, tmp_path: Path) -> None:
    export_gguf(chat_checkpoint, tmp_path / "model.gguf")
    runtime = LlamaCppRuntime(tmp_path / "model.gguf", load_source(chat_checkpoint).model.config, chat=True)
    ours = prompt([Message("user", "hi")], Tokenizer.load(chat_checkpoint))
    messages = {"messages": [{"role": "user", "content": "hi"}]}
    rendered = runtime._post("/apply-template", messages)["prompt"]
    for special in (True, False):
        request = {"content": rendered, "add_special": special, "parse_special": True}
        assert runtime._post("/tokenize", request)["tokens"] == ours
    answer = runtime._post("/v1/chat/completions", messages | {"max_tokens": 1})
    assert answer["usage"]["prompt_tokens"] == len(ours)


def test_a_missing_transformers_is_named(
    chat_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from groundup.export.command import export_model

    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(GroundupError, match="--verify needs the package transformers"):
        export_model(chat_checkpoint, tmp_path / "out", "huggingface", "fp32", True, print)
    assert not (tmp_path / "out").exists()
