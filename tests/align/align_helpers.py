"""A tiny world: invented functions with one-line descriptions, a tokenizer of 300 ids, a model of two layers."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.align.data.datasets.generated import to_records
from groundup.align.methods import MethodContext
from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext
from groundup.evaluate.alignment_data import AlignmentData
from groundup.evaluate.tasks import Example
from groundup.model.checkpoint import save_model
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.tokens import bpe
from groundup.tokens.tokenizer import Tokenizer

NAMES = ("ball", "cup", "dog", "egg", "fan", "gate", "hat", "ink", "jar", "key", "lamp", "map", "net", "oar")
VERBS = ("open", "close", "move", "paint", "count", "clean")
SITE = Runtime(device="cpu", threads=1, compile="off", checkpoint_seconds=1e-6)
TIME = 64


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    """A question about each pair of a verb and a name."""
    noise = random.Random(0)
    made = []
    for verb in VERBS:
        for name in NAMES:
            subject, times = f"{verb}_{name}", noise.randint(2, 9)
            answer = f"{subject} will {verb} the {name} {times} times and then stop."
            made.append(
                Example(
                    subject,
                    "what",
                    f"doc-{subject}",
                    subject,
                    f"What does {subject} do?",
                    answer,
                    (subject,),
                )
            )
    return made


@pytest.fixture(scope="session")
def tokenizer(examples: list[Example]) -> Tokenizer:
    texts = [text for example in examples for text in (example.question, example.answer)]
    return Tokenizer.from_merges(bpe.train(iter(texts), 320))


@pytest.fixture(scope="session")
def start(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder with noise in it."""
    config = DecoderConfig(tokenizer.vocab_size, 32, 2, 2, 2, 16, 64, max_seq_len=TIME)
    model = Decoder(config)
    model.init_weights(0)
    folder = tmp_path_factory.mktemp("start")
    save_model(folder, model, tokenizer)
    return folder


def method_context(
    folder: Path,
    examples: list[Example],
    tokenizer: Tokenizer,
    runtime: Runtime = SITE,
    keeps_log: bool = True,
    **inputs: Path,
) -> MethodContext:
    """What a method reads, with every seventh example held out."""
    stage = StageContext(folder, Reporter(quiet=True), keeps_log=keeps_log)
    return MethodContext(runtime, stage, tokenizer, alignment_data(examples), inputs)


def alignment_data(examples: Sequence[Example]) -> AlignmentData:
    """A conversation and a prompt of each example, every seventh example held out."""
    return AlignmentData(
        replace(record, split="train" if number % 7 else "held_out")
        for number, example in enumerate(examples)
        for record in to_records(example, "tiny")
    )
