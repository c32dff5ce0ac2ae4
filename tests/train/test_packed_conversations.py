"""Fine-tuning packs conversations into rows: none of them may feel the others, nor the padding."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.align.methods import MethodContext
from groundup.align.methods.sft import Sft, SftSession
from groundup.core.progress import Reporter
from groundup.core.records import Conversation, Message
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext
from groundup.evaluate.alignment_data import AlignmentData
from groundup.model.checkpoint import save_model
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.tokens import bpe
from groundup.tokens.tokenizer import Tokenizer
from training_helpers import one_thread

__all__ = ["one_thread"]

TIME = 64


def session(folder: Path, micro_rows: int) -> tuple[SftSession, Tokenizer]:
    """Fine-tuning prepared: eight rows a step, some conversations short, some long."""
    records, texts = [], []
    for n in range(40):
        answer = "It is a thing. " * (1 + n % 3)
        name = f"q{n}"
        messages = (Message("user", f"What is {name}?"), Message("assistant", answer))
        records.append(Conversation(id=name, messages=messages, split="held_out" if n < 4 else "train"))
        texts.append("".join(message.content for message in messages))
    words = Tokenizer.from_merges(bpe.train(iter(texts), 300))
    model = Decoder(DecoderConfig(words.vocab_size, 32, 2, 4, 2, 8, 48, max_seq_len=TIME))
    model.init_weights(3)
    save_model(folder / "start", model, words)
    runtime = Runtime(device="cpu", threads=1, compile="off", micro_batch=micro_rows)
    context = MethodContext(
        runtime,
        StageContext(folder / "work", Reporter(quiet=True)),
        words,
        AlignmentData(records),
        {"start": folder / "start"},
    )
    return SftSession(Sft(batch_rows=8, precision="fp32"), context), words


def gradients(prepared: SftSession, batches: Sequence[Any]) -> tuple[float, dict[str, Tensor]]:
    model, total = prepared.trained.whole(), 0.0
    model.zero_grad(set_to_none=True)
    for batch in batches:
        value, _ = prepared.loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        total += value.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def poison(prepared: SftSession, token: int, value: float) -> None:
    with torch.no_grad():
        prepared.trained.whole().get_parameter("model.embed_tokens.weight")[token] = value


@pytest.mark.parametrize("value", [1e4, -1e15])
def test_padding_reaches_neither_loss_nor_gradient(value: float, tmp_path: Path) -> None:
    prepared, words = session(tmp_path, 8)
    (batch,) = prepared.batches(0)
    padding = batch.ids == words.pad
    assert padding.any() and not batch.weights[padding].any()
    loss, clean = gradients(prepared, [batch])
    poison(prepared, words.pad, value)
    dirty_loss, dirty = gradients(prepared, [batch])
    assert dirty_loss == loss and all(torch.equal(clean[name], dirty[name]) for name in clean)


@pytest.mark.parametrize("value", [1e4, -1e15])
def test_a_conversation_reaches_nothing_of_its_neighbours(value: float, tmp_path: Path) -> None:
    """One conversation is filled with an id of its own, poisoned, and its own targets are taken out."""
    prepared, words = session(tmp_path, 8)
    (batch,) = prepared.batches(0)
    own = batch.segments == 1
    own_row = own.any(dim=1)
    assert (batch.segments[own_row] != 1).any(), "it shares its row with others"
    unused = min(set(range(words.vocab_size)) - set(batch.ids.flatten().tolist()))
    others = replace(
        batch, ids=batch.ids.masked_fill(own, unused), weights=batch.weights.masked_fill(own, 0.0)
    )
    loss, clean = gradients(prepared, [others])
    poison(prepared, unused, value)
    dirty_loss, dirty = gradients(prepared, [others])
    assert dirty_loss == loss and all(torch.equal(clean[name], dirty[name]) for name in clean)
    whole = replace(others, weights=batch.weights)
    assert gradients(prepared, [whole])[0] != pytest.approx(gradients(prepared, [batch])[0], abs=1e-4)


@pytest.mark.parametrize("micro_rows", [1, 2, 4])
def test_the_loss_of_a_micro_batch_is_its_share_of_the_step(micro_rows: int, tmp_path: Path) -> None:
    """Micro-batches hold different numbers of learnt tokens, and each of these weighs the same."""
    prepared, _ = session(tmp_path, micro_rows)
    batches = prepared.batches(0)
    learnt = [float(batch.weights.sum()) for batch in batches]
    assert len(batches) == 8 // micro_rows and len(set(learnt)) > 1
    assert {batch.total for batch in batches} == {sum(learnt)}
    loss, summed = gradients(prepared, batches)
    alone = [gradients(prepared, [replace(batch, total=1.0)]) for batch in batches]
    assert loss == pytest.approx(sum(one for one, _ in alone) / sum(learnt), abs=1e-6)
    for name, gradient in summed.items():
        parts = torch.stack([grads[name] for _, grads in alone]).sum(dim=0) / sum(learnt)
        torch.testing.assert_close(gradient, parts, atol=1e-6, rtol=1e-4)
