"""`groundup chat`: a conversation with a checkpoint, streamed to the terminal.

in:  a Chat, the user's questions
out: the model's answers on stdout, token by token or as JSON; messages on stderr
"""

import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict

from groundup.core.standard_streams import print_json
from groundup.serve.conversation import Chat, ContextFull
from groundup.serve.line_input import is_interactive

HELP = "Ctrl-C stops an answer, /new starts a new conversation, /quit or Ctrl-D exits."
BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that reorder the text around them, which can hide what a line says."""


def converse(chat: Chat, read: Callable[[], str], as_json: bool = False) -> None:
    """Answer questions until `read` raises EOFError, or /quit. Ctrl-C stops an answer, or clears the line."""
    is_full = False
    while True:
        try:
            question = read().strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            if not is_interactive():
                raise
            print(HELP, file=sys.stderr)
            continue
        if question in ("/quit", "/exit"):
            return
        if question == "/new":
            chat.messages, is_full = [], False
            print("A new conversation.", file=sys.stderr)
        elif question.startswith("/"):
            print(HELP, file=sys.stderr)
        elif question:
            _turn(chat, question, as_json)
            if chat.answer is not None and chat.answer.dropped_turns and not is_full:
                is_full = True
                print(
                    f"The context of {chat.context} tokens is full: the oldest turns are dropped from now on.",
                    file=sys.stderr,
                )


def _turn(chat: Chat, question: str, as_json: bool) -> None:
    """Print one answer of a conversation; what prevents or stops it ends the turn alone."""
    try:
        print_answer(chat, question, as_json)
    except ContextFull as error:
        print(f"groundup: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        if not is_interactive():
            raise
        print("\nStopped.", file=sys.stderr)


def print_answer(chat: Chat, question: str, as_json: bool = False) -> None:
    """Print one answer: its text as it is generated, or one JSON object."""
    show = visible if sys.stdout.isatty() else str
    with closing(chat.ask(question)) as pieces:  # type: ignore[type-var]
        for text in pieces:
            if not as_json:
                print(show(text), end="", flush=True)
    if as_json and chat.answer is not None:
        print_json(asdict(chat.answer), indent=None)
    else:
        print(flush=True)
        if chat.answer is not None and chat.answer.source:
            print(show(f"source: {chat.answer.source}"), flush=True)


def visible(text: str) -> str:
    """Escapes control and bidi-override characters, so that a model can't send commands to the terminal."""
    return "".join(ascii(char)[1:-1] if _is_control(char) else char for char in text)


def _is_control(char: str) -> bool:
    return (char < " " and char not in "\n\t") or "\x7f" <= char < "\xa0" or char in BIDI_CONTROLS
