"""A tokenizer and a tiny chat model that answers every question of the verification and ends."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from groundup.core.records import Message
from groundup.export.verify import QUESTIONS
from groundup.model.checkpoint import save_model
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.tokens.bpe import train
from groundup.tokens.chat import render
from groundup.tokens.tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    words = ("the cat sat on a mat and then it ran to the house where return def value are " * 30).split()
    return Tokenizer.from_merges(train([" ".join(words)], 320))


@pytest.fixture(scope="session")
def chat_checkpoint(one_thread: None, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a model that has learned one answer to each of 20 questions by heart."""
    answers = [f"{number} cats – on the {'mat' * (number % 3)}" for number in range(len(QUESTIONS))]
    chats = [
        render([Message("user", question), Message("assistant", answer)], tokenizer)
        for question, answer in zip(QUESTIONS, answers, strict=True)
    ]
    longest = max(len(chat.ids) for chat in chats)
    ids = torch.full((len(chats), longest), tokenizer.pad)
    learned = torch.zeros(len(chats), longest, dtype=torch.bool)
    for row, chat in enumerate(chats):
        ids[row, : len(chat.ids)] = torch.tensor(chat.ids)
        learned[row, : len(chat.ids)] = torch.tensor(chat.loss_mask)
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size, d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=128,
        max_seq_len=128,
    )  # fmt: skip
    model = Decoder(config)
    model.init_weights(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        logits = model(ids)[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits[learned[:, 1:]], ids[:, 1:][learned[:, 1:]])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.05
    folder = tmp_path_factory.mktemp("chat") / "checkpoint"
    save_model(folder, model, tokenizer, chat=True)
    return folder
