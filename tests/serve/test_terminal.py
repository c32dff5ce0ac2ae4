"""The chat at the terminal: commands, JSON, Ctrl-C, and a model that would steer the terminal."""

import io
import json
import sys
from collections.abc import Iterator

import pytest

from groundup.serve.conversation import Answer, Chat
from groundup.serve.line_input import question_reader
from groundup.serve.terminal import converse, print_answer, visible


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def talk(chat: Chat, monkeypatch: pytest.MonkeyPatch, *lines: str, as_json: bool = False) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    converse(chat, question_reader(), as_json)


def test_each_line_of_a_pipe_is_a_turn_of_one_conversation(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(chat, monkeypatch, "what?", "and?")
    out, err = capsys.readouterr()
    assert out == "".join(f"{message.content}\n" for message in chat.messages[1::2])
    assert (len(chat.messages), err) == (4, "")


def test_a_full_context_is_said_once(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "The context of 48 tokens is full: the oldest turns are dropped from now on.\n"
    talk(chat, monkeypatch, *["what is the answer?"] * 6)
    assert capsys.readouterr().err == said
    talk(chat, monkeypatch, "/new", *["what is the answer?"] * 6)
    assert capsys.readouterr().err == f"A new conversation.\n{said}"


def test_a_question_that_does_not_fit_ends_its_turn_alone(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(chat, monkeypatch, "zqx" * 40, "what?")
    out, err = capsys.readouterr()
    assert "groundup: the question takes" in err
    assert len(chat.messages) == 2 and out.strip()


def test_commands_and_the_end(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(chat, monkeypatch, "/help", "", "/quit", "what?")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("/new starts a new conversation") == 1
    talk(chat, monkeypatch)  # the end of the input leaves too


def test_json_is_one_object_per_answer(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk(chat, monkeypatch, "what?", "and?", as_json=True)
    lines = capsys.readouterr().out.splitlines()
    answers = [json.loads(line) for line in lines]
    assert [answer["text"] for answer in answers] == [message.content for message in chat.messages[1::2]]
    assert answers[1].keys() == {
        "text",
        "finish_reason",
        "prompt_tokens",
        "completion_tokens",
        "dropped_turns",
        "source",
    }
    assert answers[1]["completion_tokens"] == 8 and answers[1]["finish_reason"] == "length"


KEPT = (
    "a\u00a0b\u200d\u200c\u3000c می\u200cخواهم क्\u200dष soft\u00adhyphen\ttab\n"
    "\u200e\u200f\u061c👨\u200d👩\u200d👧 \ue000 \u2028 ü"
)


def test_the_source_is_printed_under_the_answer(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(self: Chat, question: str) -> Iterator[str]:
        source = "textwrap.py, dedent" if question == "known" else None
        self.answer = Answer("an answer", "stop", 3, 2, 0, source)
        yield "an answer"

    monkeypatch.setattr(Chat, "ask", ask)
    print_answer(chat, "known")
    assert capsys.readouterr().out == "an answer\nsource: textwrap.py, dedent\n"
    print_answer(chat, "unknown")
    assert capsys.readouterr().out == "an answer\n"
    print_answer(chat, "known", as_json=True)
    assert json.loads(capsys.readouterr().out)["source"] == "textwrap.py, dedent"


def test_text_is_printed_as_it_is() -> None:
    assert visible(KEPT) == KEPT


@pytest.mark.parametrize(
    "char", [*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), *"\u202a\u202e\u2066\u2069"]
)
def test_control_and_bidi_override_characters_are_escaped(char: str) -> None:
    if char not in "\n\t":
        assert visible(f"a{char}b") == f"a{char.encode('unicode_escape').decode()}b"


@pytest.mark.parametrize(("stream", "shown"), [(Terminal, "a\\x1b[2J"), (io.StringIO, "a\x1b[2J")])
def test_only_a_terminal_gets_escapes(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], shown: str
) -> None:
    monkeypatch.setattr(Chat, "ask", lambda self, question: (piece for piece in ["a\x1b[2J", "b\tü\n"]))
    out = stream()
    monkeypatch.setattr(sys, "stdout", out)
    print_answer(chat, "what?")
    assert out.getvalue() == f"{shown}b\tü\n\n"


def stopping_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Chat.ask

    def ask(self: Chat, question: str) -> Iterator[str]:
        if question == "stop":
            yield "half an"
            raise KeyboardInterrupt
        yield from whole(self, question)

    monkeypatch.setattr(Chat, "ask", ask)


def test_ctrl_c_stops_an_answer_and_clears_a_line_and_the_chat_goes_on(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping_ask(monkeypatch)
    lines: Iterator[str | type[BaseException]] = iter(["stop", KeyboardInterrupt, "what?", EOFError])

    def read() -> str:
        line = next(lines)
        if not isinstance(line, str):
            raise line
        return line

    monkeypatch.setattr(sys, "stdin", Terminal())
    converse(chat, read)
    out, err = capsys.readouterr()
    assert out.startswith("half an")
    assert "Stopped." in err and "/quit or Ctrl-D exits" in err
    assert [message.content for message in chat.messages[:1]] == ["what?"]


def test_ctrl_c_ends_a_chat_that_nobody_types(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    stopping_ask(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        talk(chat, monkeypatch, "stop", "what?")
