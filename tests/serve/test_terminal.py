"""The chat: streaming, turns, a full context, and a model that would steer the terminal."""

import io
import sys
from collections.abc import Iterator

import pytest
import torch

from groundup.infer.engine import Engine
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.serve.terminal import Chat, ChatOptions, ContextFull, answer_once, converse
from groundup.tokens import bpe
from groundup.tokens.tokenizer import Tokenizer

CONTEXT = 48


@pytest.fixture
def chat() -> Chat:
    tokenizer = Tokenizer.from_merges(bpe.train(iter(["what is the answer to the question? " * 30]), 280))
    model = Decoder(DecoderConfig(tokenizer.vocab_size, 32, 1, 2, 2, 16, 64, max_seq_len=CONTEXT))
    model.init_weights(0)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(20)
        model.lm_head.weight.mul_(20)
    engine = Engine(model, {tokenizer.end_of_turn}, tokenizer.pad, CONTEXT)
    return Chat(engine, tokenizer, CONTEXT, ChatOptions(max_tokens=8))


def talk(chat: Chat, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    converse(chat)


def test_an_answer_comes_in_pieces_and_both_turns_are_kept(chat: Chat) -> None:
    pieces = list(chat.ask("what?"))
    assert len(pieces) > 2
    assert [message.role for message in chat.messages] == ["user", "assistant"]
    assert chat.messages[1].content == "".join(pieces)
    list(chat.ask("and?"))
    assert len(chat.messages) == 4


def test_earlier_turns_change_the_answer(chat: Chat) -> None:
    fresh = "".join(chat.ask("and?"))
    chat.messages = []
    list(chat.ask("what is the answer?"))
    assert "".join(chat.ask("and?")) != fresh


def test_a_full_context_is_said_and_keeps_the_conversation(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ContextFull, match=r"the context is full.*of 48.*Ask something shorter"):
        list(chat.ask("zqx" * 40))
    assert chat.messages == []
    talk(chat, monkeypatch, *["what is the answer?"] * 6, "/new", "what?")
    out, err = capsys.readouterr()
    assert "the context is full" in err
    assert "/new starts a new conversation" in err
    assert "A new conversation." in err
    assert len(chat.messages) == 2
    assert out.strip()


def test_commands_and_the_end(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(chat, monkeypatch, "/help", "", "/quit", "what?")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("/new starts a new conversation") == 2
    talk(chat, monkeypatch)  # end of input leaves too


def test_control_characters_of_an_answer_are_made_visible(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Chat, "ask", lambda self, question: iter(["a\x1b[2J", "b\tü\n"]))
    answer_once(chat, "what?")
    assert capsys.readouterr().out == "a\\x1b[2Jb\tü\n\n"


def test_ctrl_c_stops_an_answer_and_the_chat_goes_on(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Chat.ask

    def ask(self: Chat, question: str) -> Iterator[str]:
        if question == "stop":
            yield "half an"
            raise KeyboardInterrupt
        yield from whole(self, question)

    monkeypatch.setattr(Chat, "ask", ask)
    talk(chat, monkeypatch, "stop", "what?")
    out, err = capsys.readouterr()
    assert out.startswith("half an")
    assert "Stopped" in err
    assert chat.messages[0].content == "what?"
