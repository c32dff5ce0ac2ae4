"""A pretraining in miniature: rows and spans of a small corpus, a decoder of one layer, milliseconds a step."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import torch

from artifact_helpers import published
from groundup.core.builder import Builder
from groundup.core.progress import Reporter
from groundup.core.records import Document
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, StageContext
from groundup.core.store import Store
from groundup.model.architectures.qwen3 import Qwen3
from groundup.text.documents import DOCUMENTS, DocumentWriter
from groundup.tokens import bpe
from groundup.tokens.tokenize import Tokenize, tokenize
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.optimizers.muon import Muon
from groundup.train.pretrain import Pretrain, pretrain

SEQ_LEN = 32
ROWS = 4
"""Rows of a step."""
SITE = Runtime(device="cpu", threads=1, compile="off", checkpoint_seconds=1e-6)
"""Saves after every step."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small gain nothing from more threads, and waiting for one another costs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Inputs:
    """What pretraining reads."""

    tokens: Artifact
    tokenizer: Artifact


def inputs(folder: Path) -> Inputs:
    """Rows of a hundred short documents, and the tokenizer they were made with."""
    texts = [f"Number {n} is {n * n} less than {n * n + n}. " * (1 + n % 5) for n in range(100)]
    words = Tokenizer.from_merges(bpe.train(iter(texts), 320))
    words.save(folder / "tokenizer")
    with DocumentWriter(folder / "documents" / DOCUMENTS / "0.parquet") as writer:
        writer.write([Document(f"doc-{n}", text, "s", f"{n}.txt") for n, text in enumerate(texts)])
    out = StageContext(folder / "tokens", Reporter(quiet=True))
    documents = published(folder / "documents", "curate", "corpus")
    tokenizer = published(folder / "tokenizer", "tokenizer", "tokenizer")
    tokenize(Tokenize(seq_len=SEQ_LEN, validation_share=0.1), SITE, out, documents, tokenizer)
    out.close()
    return Inputs(published(folder / "tokens", "tokenize", "token_dataset"), tokenizer)


def recipe(steps: int) -> Pretrain:
    """A decoder of one layer for so many steps."""
    shape = Qwen3(d_model=16, n_heads=2)
    batch = ROWS * SEQ_LEN
    rates = Muon(lr=0.007, adam_lr=0.024, weight_decay=0.0)  # the rules are made for larger models
    return Pretrain(depth=1, architecture=shape, optimizer=rates, tokens=steps * batch, batch_tokens=batch,
                    max_epochs=1000, validate_every=50, precision="fp32")  # fmt: skip


def build(workspace: Path, given: Inputs, steps: int, runtime: Runtime = SITE) -> Artifact:
    """Run the stage as `groundup run` does, but for measuring the machine, which takes seconds."""
    builder = Builder(Store(workspace), runtime, Reporter(quiet=True))
    with mock.patch("groundup.train.utilization.matmul_rate", lambda *_, **__: 1e12):
        return builder(pretrain, recipe(steps), given.tokens, given.tokenizer)
