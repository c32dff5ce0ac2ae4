"""`groundup chat`: a conversation with a checkpoint, streamed to the terminal.

in:  a checkpoint folder and the user's questions
out: the model's answers, token by token on stdout; messages on stderr
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from groundup.core.errors import GroundupError
from groundup.core.records import Message
from groundup.infer.engine import Engine
from groundup.model.checkpoint import load_decoder
from groundup.tokens.chat import prompt
from groundup.tokens.tokenizer import StreamDecoder, Tokenizer

HELP = "Type a question. Ctrl-C stops an answer, /new starts a new conversation, /quit exits (or Ctrl-D)."


@dataclass(frozen=True)
class ChatOptions:
    """Sampling options. Temperature 0 is greedy decoding; `max_tokens` limits one answer."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 10:
            raise GroundupError(f"--temperature {self.temperature}: choose a number from 0 to 10")
        if not 0 < self.top_p <= 1:
            raise GroundupError(f"--top-p {self.top_p}: choose a number above 0, at most 1")
        if self.max_tokens < 1:
            raise GroundupError(f"--max-tokens {self.max_tokens}: choose a number from 1")


class ContextFull(GroundupError):
    """The conversation does not fit into the model's context."""


@dataclass
class Chat:
    """A model, its tokenizer and the conversation so far."""

    engine: Engine
    tokenizer: Tokenizer
    context: int
    options: ChatOptions
    messages: list[Message] = field(default_factory=list)

    def ask(self, question: str) -> Iterator[str]:
        """Yield the answer's text as it is generated, then add both turns to the conversation.

        Raises ContextFull, without changing the conversation, if no answer would fit.
        """
        turns = [*self.messages, Message("user", question)]
        ids = prompt(turns, self.tokenizer)
        room = self.context - len(ids)
        if room < 1:
            raise ContextFull(
                f"the context is full: the conversation takes {len(ids)} tokens of {self.context}. "
                + ("/new starts a new conversation" if self.messages else "Ask something shorter")
            )
        decoder, pieces = StreamDecoder(self.tokenizer), []
        stream = self.engine.stream(
            ids,
            max_new_tokens=min(room, self.options.max_tokens),
            temperature=self.options.temperature,
            top_p=self.options.top_p,
            seed=self.options.seed,
        )
        for token in stream:
            pieces.append(decoder.push(token))
            yield pieces[-1]
        pieces.append(decoder.flush())
        yield pieces[-1]
        self.messages = [*turns, Message("assistant", "".join(pieces))]


def open_chat(folder: Path, options: ChatOptions) -> Chat:
    """Load the model and tokenizer of a checkpoint folder."""
    tokenizer = Tokenizer.load(folder)
    model = load_decoder(folder)
    stop = {*tokenizer.stop_ids, tokenizer.user}
    engine = Engine(model, stop, tokenizer.pad, model.config.max_seq_len)
    return Chat(engine, tokenizer, model.config.max_seq_len, options)


def answer_once(chat: Chat, question: str) -> None:
    """Print one answer."""
    _print_answer(chat, question)


def converse(chat: Chat) -> None:
    """Answer questions from stdin until it ends or /quit."""
    interactive = sys.stdin.isatty()
    print(f"Context: {chat.context} tokens. {HELP}", file=sys.stderr)
    while True:
        try:
            question = input("\n> " if interactive else "").strip()
        except EOFError:
            print(file=sys.stderr)
            return
        if question in ("/quit", "/exit"):
            return
        if question == "/new":
            chat.messages = []
            print("A new conversation.", file=sys.stderr)
        elif question.startswith("/"):
            print(HELP, file=sys.stderr)
        elif question:
            try:
                _print_answer(chat, question)
            except ContextFull as full:
                print(f"groundup: {full}", file=sys.stderr)
            except KeyboardInterrupt:
                print(
                    "\nStopped. The question and its partial answer are not part of the conversation.",
                    file=sys.stderr,
                )


def _print_answer(chat: Chat, question: str) -> None:
    for text in chat.ask(question):
        sys.stdout.write(_visible(text))
        sys.stdout.flush()
    print()


def _visible(text: str) -> str:
    """Escapes control characters, so that a model can't send commands to the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)
