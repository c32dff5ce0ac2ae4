"""A conversation with a model: its turns, the context that they fill, and the answers.

in:  a model with its tokenizer, questions
out: each answer's text as it is generated, and an Answer

Keys and values of the conversation are kept: a turn computes only what is new in it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from groundup.core.errors import GroundupError
from groundup.core.records import Message
from groundup.core.runtime import Runtime
from groundup.infer.engine import Engine, PrefixCache
from groundup.model.checkpoint import load_decoder
from groundup.model.decoder import Decoder
from groundup.parallel.hardware import Hardware, choose_hardware
from groundup.text.retrieval.corpus_passages import Passage
from groundup.text.retrieval.retriever import Retriever, source_of, supporting_passage, with_passages
from groundup.tokens.chat import prompt
from groundup.tokens.tokenizer import StreamDecoder, Tokenizer

ANSWER_SHARE = 4
"""Of the context, one part in so many is kept free for the answer before old turns are dropped."""

FinishReason = Literal["stop", "length", "interrupted"]


@dataclass(frozen=True)
class ChatOptions:
    """Sampling options and the system prompt. Temperature 0 is greedy; `max_tokens` limits one answer."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 200
    seed: int = 0
    system: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 10:
            raise GroundupError(f"--temperature {self.temperature}: choose a number from 0 to 10")
        if not 0 < self.top_p <= 1:
            raise GroundupError(f"--top-p {self.top_p}: choose a number above 0, at most 1")
        if self.max_tokens < 1:
            raise GroundupError(f"--max-tokens {self.max_tokens}: choose a number from 1")


class ContextFull(GroundupError):
    """A question, with the system prompt, does not fit into the model's context."""


@dataclass(frozen=True)
class Answer:
    """One answer.

    dropped_turns: messages of the conversation that were dropped to make room for it. source: path and name of the
    passage in the prompt that supports it, if one does.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    dropped_turns: int
    source: str | None = None


@dataclass(frozen=True)
class Grounding:
    """The passages of a corpus, of which `count` go into each prompt."""

    retriever: Retriever
    count: int


@dataclass
class Chat:
    """A model, its tokenizer and the conversation so far, without the system prompt."""

    engine: Engine
    tokenizer: Tokenizer
    options: ChatOptions
    messages: list[Message] = field(default_factory=list)
    answer: Answer | None = None
    """the latest"""
    prefix: PrefixCache = field(default_factory=PrefixCache)
    grounding: Grounding | None = None
    """None = answers without passages"""

    @property
    def context(self) -> int:
        """The model's context in tokens."""
        return self.engine.max_seq_len

    def ask(self, question: str) -> Iterator[str]:
        """Yield the answer's text as it is generated, then add both turns to the conversation.

        The tokens of an interrupted answer are kept. Raises ContextFull, without changing the conversation,
        if the question alone leaves no room for an answer.
        """
        turns, ids, passages = self._fitted([*self.messages, Message("user", question)])
        dropped = len(self.messages) + 1 - len(turns)
        room = min(self.context - len(ids), self.options.max_tokens)
        decoder, pieces, tokens = StreamDecoder(self.tokenizer), [""], 0
        finish: FinishReason = "interrupted"
        stream = self.engine.stream(
            ids,
            max_new_tokens=room,
            temperature=self.options.temperature,
            top_p=self.options.top_p,
            seed=self.options.seed,
            prefix=self.prefix,
        )
        try:
            for token in stream:
                tokens += 1
                pieces.append(decoder.push(token))
                yield pieces[-1]
            pieces.append(decoder.flush())
            yield pieces[-1]
            finish = "length" if tokens == room else "stop"
        finally:
            text = "".join(pieces)
            support = supporting_passage(text, passages)
            source = None if support is None else source_of(support)
            self.answer = Answer(text, finish, len(ids), tokens, dropped, source)
            if self.answer.text or self.answer.finish_reason != "interrupted":
                self.messages = [*turns, Message("assistant", self.answer.text)]

    def _fitted(self, turns: list[Message]) -> tuple[list[Message], list[int], list[Passage]]:
        """The newest turns that leave room for an answer, the ids of the prompt, and the passages in it.

        The question always stays; turns are dropped before passages.
        """
        passages = self._passages(turns)
        wanted = max(1, min(self.options.max_tokens, self.context // ANSWER_SHARE))
        while True:
            ids = prompt(self.turn_messages(turns, passages), self.tokenizer)
            room = self.context - len(ids)
            if room >= wanted or (len(turns) == 1 and not passages and room >= 1):
                return turns, ids, passages
            if len(turns) > 1:
                turns = turns[2:]
            elif passages:
                passages = passages[:-1]
            else:
                raise ContextFull(
                    f"the question takes {len(ids)} tokens of a context of {self.context}, which leaves no room for "
                    "an answer. Ask something shorter"
                    + (", or shorten --system" if self.options.system else "")
                )

    def _passages(self, turns: list[Message]) -> list[Passage]:
        """The passages for the newest question."""
        if self.grounding is None:
            return []
        questions = [turn.content for turn in turns if turn.role == "user"]
        return self.grounding.retriever.find(questions, self.grounding.count)

    def turn_messages(self, turns: list[Message], passages: Sequence[Passage] = ()) -> list[Message]:
        """The messages of the prompt: the system prompt, the passages, then the turns."""
        system = [Message("system", self.options.system)] if self.options.system else []
        return with_passages([*system, *turns], passages)


def open_chat(folder: Path, options: ChatOptions, runtime: Runtime) -> tuple[Chat, Hardware]:
    """Load the model and tokenizer of a checkpoint folder, in bf16 where the hardware is fast at it."""
    tokenizer = Tokenizer.load(folder)
    hardware = choose_hardware(runtime)
    model = load_decoder(folder, hardware.device, hardware.dtype)
    cast_matrices(model, hardware.dtype)
    stop = {*tokenizer.stop_ids, tokenizer.user}
    engine = Engine(model, stop, tokenizer.pad, model.config.max_seq_len)
    return Chat(engine, tokenizer, options), hardware


def cast_matrices(model: Decoder, dtype: torch.dtype) -> None:
    """Cast all matrices once instead of at every token, which gives the same numbers."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = parameter.data.to(dtype)
