"""Verification of an export: another runtime must give the log-probabilities, ids and texts of our decoder.

in:  the checkpoint, and the same model loaded in the other runtime
out: Verification, whose `require` raises GroundupError naming what differs

Each runtime has a file of its own: `verify_transformers.py`, `verify_llama_cpp.py`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from tokenizers import Tokenizer as HfTokenizer

from groundup.core.errors import GroundupError
from groundup.core.records import Message
from groundup.export.files import read_json
from groundup.export.source import TOKENIZER, ExportSource
from groundup.infer.engine import Engine
from groundup.tokens.chat import prompt
from groundup.tokens.tokenizer import Tokenizer, is_own_table

QUESTIONS = (
    "What is this text about?", "Who are you?", "What does the function return?", "Why?", "Hello!",
    "Name three things.", "How do I read a file?", "What comes after Monday?", "Summarise the story.",
    "Is 17 a prime number?", "Tell me more.", "What is the capital of France?", "Explain it to a child.",
    "Write a poem about the sea.", "  spaces around  ", "def f(x):\n    return x", "Ünïcödé – 漢字 🦊?",
    "Repeat the last word.", "What is 12 + 30?", "Thank you.",
)  # fmt: skip
"""Prompts of the greedy comparison."""
MAX_NEW_TOKENS = 64
FUZZ_STRINGS = 300
ALPHABETS = (
    "abcXYZ '’.,;:!?-_()[]{}\"/\\@#$%^&*+=<>|~`",
    "0123456789٠١٢०१२",
    " \t\n\r\u00a0\u2003\u3000",
    "äöüßéñçğİıſKÅ",
    "漢字かなカナ한글ไทยالعربيةहिन्दीрусский",
    "🦊👨\u200d👩\u200d👧🇩🇪\u0301\ufeff\x00\x7f\u2028",
)
LIKELY = -15.0
"""Log-probabilities below this are not compared: a runtime may round them to 0 in fp32."""
PREFIXES = (1, 2, 3, 5, 8, 13, 21, 34)
"""Lengths of the prefixes whose next-token distributions are compared."""


class Runtime(Protocol):
    """Another runtime with the exported model."""

    name: str

    def encode(self, text: str) -> list[int]:
        """Ids of a text without special tokens."""
        ...

    def next_log_probs(self, ids: list[int]) -> torch.Tensor:
        """Log-probabilities of all next tokens, fp32 [vocab]."""
        ...

    def answer(self, question: str, max_new_tokens: int) -> tuple[str, bool]:
        """Greedy text after a question (chat model) or a text (base model), and whether a stop token ended it."""
        ...


@dataclass
class Verification:
    """Result of a comparison."""

    runtime: str
    tolerance: float
    difference: float = 0.0
    """largest difference of two log-probabilities"""
    other_ids: list[str] = field(default_factory=list)
    """strings with other ids"""
    other_texts: list[str] = field(default_factory=list)
    """questions with another greedy text, or another reason to end"""
    strings: int = 0
    questions: int = 0
    ended: int = 0

    def require(self, same_texts: bool) -> None:
        """Raises GroundupError if log-probabilities, ids or (with `same_texts`) greedy texts differ."""
        problems = []
        if not self.difference <= self.tolerance:
            problems.append(
                f"log-probabilities differ by {self.difference:.1e} (at most {self.tolerance:.0e})"
            )
        if self.other_ids:
            problems.append(
                f"{len(self.other_ids)} of {self.strings} strings get other ids: {self.other_ids[0]!r}"
            )
        if same_texts and self.other_texts:
            problems.append(
                f"{len(self.other_texts)} of {self.questions} greedy texts differ: {self.other_texts[0]!r}"
            )
        if problems:
            raise GroundupError(
                f"the exported model is not the same in {self.runtime}, and was not written: {'; '.join(problems)}"
            )

    def __str__(self) -> str:
        return (
            f"verified in {self.runtime}: log-probabilities within {self.difference:.1e}, "
            f"{self.strings - len(self.other_ids)} of {self.strings} strings with the same ids, "
            f"{self.questions - len(self.other_texts)} of {self.questions} greedy texts equal, {self.ended} ended"
        )


class Reference:
    """Our decoder and the tokenizers library: what the other runtime is compared with."""

    def __init__(self, source: ExportSource) -> None:
        self.source = source
        self.model = source.model
        if not (source.folder / TOKENIZER).is_file():
            raise GroundupError(
                f"{source.folder} has no {TOKENIZER}, which --verify needs: export it without"
            )
        self.table = read_json(source.folder / TOKENIZER)

    @cached_property
    def tokenizer(self) -> HfTokenizer:
        """The tokenizer of the checkpoint, in the tokenizers library."""
        return HfTokenizer.from_file(str(self.source.folder / TOKENIZER))

    @cached_property
    def _own_tokenizer(self) -> Tokenizer | None:
        return Tokenizer(self.table) if is_own_table(self.table) else None

    def encode(self, text: str) -> list[int]:
        """Ids of a text without special tokens."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    @torch.no_grad()
    def next_log_probs(self, ids: list[int]) -> torch.Tensor:
        """Log-probabilities of all next tokens, fp32 [vocab]."""
        return torch.log_softmax(self.model(torch.tensor([ids]))[0, -1], dim=-1)

    def prompt_ids(self, question: str) -> list[int] | None:
        """The ids before the answer to a question; None for a chat template that is not ours."""
        if self.source.chat_template is None:
            bos = self.source.special_ids.get("bos_token_id")
            return [*([] if bos is None else [bos]), *self.encode(question)]
        if self._own_tokenizer is None:
            return None
        return prompt([Message("user", question)], self._own_tokenizer)

    def answers(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[tuple[str, bool]]:
        """Greedy texts, and whether a stop token ended them."""
        stop = set(self.source.stop_ids)
        engine = Engine(self.model, stop, min(stop, default=0), self.model.config.max_seq_len)
        return [
            (self.tokenizer.decode(completion.content, skip_special_tokens=True), completion.finish == "stop")
            for completion in engine.generate(prompts, max_new_tokens, temperature=0.0)
        ]


def compare(reference: Reference, runtime: Runtime, tolerance: float) -> Verification:
    """Compares tokenization, next-token distributions and greedy texts."""
    result = Verification(runtime.name, tolerance)
    texts = fuzz_strings()
    result.strings = len(texts)
    result.other_ids = [text for text in texts if runtime.encode(text) != reference.encode(text)]
    for ids in _prefixes(reference):
        expected = reference.next_log_probs(ids)
        likely = expected > LIKELY
        difference = (runtime.next_log_probs(ids) - expected)[likely].abs().max().item()
        # A nan is larger than every tolerance.
        result.difference = max(result.difference, difference if difference == difference else float("inf"))
    _compare_answers(reference, runtime, result)
    return result


def _compare_answers(reference: Reference, runtime: Runtime, result: Verification) -> None:
    context = reference.model.config.max_seq_len
    prompts = {question: reference.prompt_ids(question) for question in QUESTIONS}
    fitting = {
        question: ids for question, ids in prompts.items() if ids is not None and 0 < len(ids) < context
    }
    if not fitting:
        return
    room = min(MAX_NEW_TOKENS, *(context - len(ids) for ids in fitting.values()))
    result.questions = len(fitting)
    answers = reference.answers(list(fitting.values()), room)
    for question, expected in zip(fitting, answers, strict=True):
        result.ended += expected[1]
        if _comparable(runtime.answer(question, room)) != _comparable(expected):
            result.other_texts.append(question)


def _comparable(answer: tuple[str, bool]) -> tuple[str, bool]:
    """Without U+FFFD: runtimes write different numbers of them for incomplete UTF-8."""
    return answer[0].replace("\ufffd", ""), answer[1]


def _prefixes(reference: Reference) -> list[list[int]]:
    """Prefixes of a conversation's or a text's ids, and of random ids as long as the context allows."""
    config = reference.model.config
    generator = random.Random(0)
    noise = [generator.randrange(config.vocab_size) for _ in range(min(256, config.max_seq_len - 1))]
    text = reference.prompt_ids(QUESTIONS[0]) or reference.encode(QUESTIONS[0])
    cuts = [ids[:length] for ids in (text, noise) for length in PREFIXES if length <= len(ids)]
    return [*cuts, text[: config.max_seq_len - 1], noise]


def fuzz_strings() -> list[str]:
    """Strings on which tokenizers differ: mixed scripts, digits, spaces, case, joiners. Always the same ones."""
    generator = random.Random(0)
    mixed = "".join(ALPHABETS)
    return [
        "".join(generator.choices(generator.choice([*ALPHABETS, mixed]), k=generator.randrange(1, 40)))
        + "".join(generator.choices(mixed, k=generator.randrange(5)))
        for _ in range(FUZZ_STRINGS)
    ]
