"""The chat template in transformers: our ids, our loss mask, and what OpenAI's API adds to a conversation."""

import json
from typing import Any

import pytest

from groundup.core.records import Message
from groundup.tokens.bpe import train
from groundup.tokens.chat import prompt, render
from groundup.tokens.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

TEXT = "  def f(x):\n    return x  # it's 12345\n\n漢字 👨\u200d👩\u200d👧 \n"
CONVERSATIONS = [
    [Message("user", "hi"), Message("assistant", "hello  there\n")],
    [Message("system", " be kind \n"), Message("user", TEXT), Message("assistant", TEXT)],
    [
        Message("user", ""),
        Message("assistant", ""),
        Message("user", "{{ x }} {% y %}"),
        Message("assistant", "a"),
    ],
    [Message("assistant", "I begin."), Message("system", "late"), Message("user", "?")],
]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return Tokenizer.from_merges(train(["the cat sat on the mat and the dog sat on the log " * 9], 300))


@pytest.fixture(scope="module")
def theirs(ours: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """As exported for a chat model: BOS comes from the template alone."""
    folder = tmp_path_factory.mktemp("tokenizer")
    ours.save(folder, chat=True, max_length=512)
    table = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(table | {"post_processor": None}))
    return transformers.AutoTokenizer.from_pretrained(folder)


def plain(messages: list[Message]) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": message.content} for message in messages]


@pytest.mark.parametrize("messages", CONVERSATIONS)
def test_ids_and_assistant_mask_are_those_of_training(
    messages: list[Message], ours: Tokenizer, theirs: Any
) -> None:
    expected = render(messages, ours)
    encoded = theirs.apply_chat_template(plain(messages), return_dict=True, return_assistant_tokens_mask=True)
    assert encoded["input_ids"] == expected.ids
    assert [bool(learned) for learned in encoded["assistant_masks"]] == expected.loss_mask


@pytest.mark.parametrize("messages", CONVERSATIONS)
def test_there_is_one_bos_whichever_way_a_client_tokenizes(
    messages: list[Message], ours: Tokenizer, theirs: Any
) -> None:
    text = theirs.apply_chat_template(plain(messages), tokenize=False, add_generation_prompt=True)
    for special in (True, False):
        assert theirs(text, add_special_tokens=special)["input_ids"] == prompt(messages, ours)


def test_the_eos_token_is_the_end_of_a_turn_and_the_length_is_the_context(
    ours: Tokenizer, theirs: Any
) -> None:
    assert theirs.eos_token_id == ours.end_of_turn
    assert (theirs.bos_token_id, theirs.pad_token_id) == (ours.bos, ours.pad)
    assert theirs.model_max_length == 512
    assert theirs.decode(render(CONVERSATIONS[0], ours).ids, skip_special_tokens=True) == "hihello  there\n"


def test_content_parts_null_and_developer_are_accepted(theirs: Any) -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    messages = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None},
        {"role": "assistant"},
    ]
    assert theirs.apply_chat_template(messages, tokenize=False) == (
        "<|begin_of_text|><|system|>be kind<|end_of_turn|><|user|>a b<|end_of_turn|>"
        "<|assistant|><|end_of_turn|><|assistant|><|end_of_turn|>"
    )


def test_tools_calls_and_results_are_written_as_text(theirs: Any) -> None:
    calls = [
        {"id": "1", "type": "function", "function": {"name": "add", "arguments": arguments}}
        for arguments in ({"a": 1}, '{"a": 2}')
    ]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "name": "add", "content": "2"},
        {"role": "tool", "content": [{"type": "text", "text": "3"}]},
        {"role": "assistant", "content": "Two."},
    ]
    schema = (
        f"You can call these functions, given as JSON schemas:\n{json.dumps(TOOL)}\n"
        'To call one, answer only with {"name": its name, "arguments": an object}.<|end_of_turn|>'
    )
    turns = (
        '<|user|>1 + 1?<|end_of_turn|><|assistant|>{"name": "add", "arguments": {"a": 1}}\n'
        '{"name": "add", "arguments": {"a": 2}}<|end_of_turn|><|user|>Result of add:\n2<|end_of_turn|>'
        "<|user|>Result:\n3<|end_of_turn|><|assistant|>Two.<|end_of_turn|>"
    )
    assert theirs.apply_chat_template(messages, tools=[TOOL], tokenize=False) == (
        f"<|begin_of_text|><|system|>{schema}{turns}"
    )
    with_system = [{"role": "system", "content": "Be kind."}, *messages]
    assert theirs.apply_chat_template(with_system, tools=[TOOL], tokenize=False) == (
        f"<|begin_of_text|><|system|>Be kind.\n\n{schema}{turns}"
    )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "bot", "content": "x"}, "unknown role bot"),
        ({"role": "user", "content": [{"type": "image"}]}, "content part of type image"),
    ],
)
def test_an_unknown_role_or_part_is_refused(message: dict[str, Any], expected: str, theirs: Any) -> None:
    with pytest.raises(Exception, match=expected):
        theirs.apply_chat_template([message], tokenize=False)
