"""Pretraining as a whole: micro-batches, padding and other documents, and who is named when a batch breaks it."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from groundup.core.errors import TrainingError
from groundup.core.metrics import read_metrics
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.losses import chunk_with_gradient
from groundup.parallel.context import SINGLE
from groundup.parallel.engines.native import NativeEngine
from groundup.tokens.loader import sample_indices
from groundup.tokens.shards import PackedDataset
from groundup.tokens.tokenizer import Tokenizer
from groundup.train import pretrain as stage
from groundup.train.anomaly import AnomalyGuard
from groundup.train.batches import TokenBatch, step_batches, token_batch
from groundup.train.pretrain_loss import pretraining_loss
from groundup.train.step import Stepper
from training_helpers import ROWS, SEQ_LEN, SITE, Inputs, build, inputs, one_thread

__all__ = ["one_thread"]

REST = SITE.model_copy(update={"checkpoint_seconds": 1e6})
"""Saves at the end only."""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def words(given: Inputs) -> Tokenizer:
    return Tokenizer.load(given.tokenizer.path)


def decoder(words: Tokenizer) -> Decoder:
    model = Decoder(DecoderConfig(words.vocab_size, 32, 2, 4, 2, 8, 48, max_seq_len=SEQ_LEN))
    model.init_weights(3)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(20)
    return model


def uneven(words: Tokenizer) -> np.ndarray:
    """Eight rows of two documents each, with 0 to 28 places of padding."""
    draw = np.random.default_rng(0)
    rows = draw.integers(0, words.bos, (8, SEQ_LEN + 1))
    for number, row in enumerate(rows):
        row[0] = row[3 + number % 4 * 5] = words.bos
        row[SEQ_LEN + 1 - 4 * number :] = words.pad
    return rows


def batches_of(rows: np.ndarray, words: Tokenizer, micro_rows: int, folder: Path) -> list[TokenBatch]:
    """What pretraining makes of a step that reads all `rows`."""
    np.save(folder / "rows.npy", rows)
    in_order = np.arange(len(rows))
    return step_batches(
        PackedDataset(folder / "rows.npy"), lambda step: in_order, words, micro_rows, SINGLE, 0
    )


def gradients(model: Decoder, batches: list[TokenBatch]) -> tuple[float, dict[str, Tensor]]:
    """The loss and all gradients that a step of the loop sees, by plain stochastic gradient descent of rate 1."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    loss = pretraining_loss(chunk_with_gradient)
    learner = NativeEngine(model, torch.optim.SGD(model.parameters(), lr=1.0), loss)
    stepper = Stepper(learner, AnomalyGuard(), detect_spikes=False)
    outcome = stepper.train_step(0, batches)
    moved = {name: before[name] - parameter.detach() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(before[name])
    return outcome.values["loss"], moved


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_micro_batches_with_uneven_padding_give_the_gradients_of_the_whole(
    parts: int, words: Tokenizer, tmp_path: Path
) -> None:
    model, rows = decoder(words), uneven(words)
    loss, whole = gradients(model, batches_of(rows, words, micro_rows=8, folder=tmp_path))
    parts_loss, summed = gradients(model, batches_of(rows, words, micro_rows=8 // parts, folder=tmp_path))
    assert parts_loss == pytest.approx(loss, abs=1e-6)
    for name in whole:
        torch.testing.assert_close(summed[name], whole[name], atol=1e-6, rtol=1e-5)


def test_the_loss_is_the_mean_over_all_tokens_that_count(words: Tokenizer, tmp_path: Path) -> None:
    """Against PyTorch's own cross-entropy on the logits of every row by itself, in float64."""
    model, rows = decoder(words), uneven(words)
    losses = []
    for row in rows:
        ids = torch.from_numpy(row)
        batch = token_batch(row[None], words)
        logits = model.logits(model.hidden(batch.ids, batch.segments))[0].double()
        counts = (ids[1:] != words.pad) & (ids[1:] != words.bos)
        losses.append(torch.nn.functional.cross_entropy(logits[counts], ids[1:][counts], reduction="none"))
    assert len({len(part) for part in losses}) > 4, "the rows are padded unevenly"
    loss, _ = gradients(model, batches_of(rows, words, micro_rows=2, folder=tmp_path))
    assert loss == pytest.approx(float(torch.cat(losses).mean().detach()), abs=1e-6)


def poisoned(model: Decoder, token: int, value: float) -> None:
    with torch.no_grad():
        model.model.embed_tokens.weight[token] = value


POISON = 5
"""An id that stands in one document only."""


def three_documents(words: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Rows of three documents and more and padding, the second of them POISON; and where its targets are."""
    rows = uneven(words)
    rows[rows == POISON] = POISON + 1
    middle = np.zeros(rows.shape, dtype=bool)
    middle[:, 1:4] = True
    rows[:, 1], rows[:, 2:4], rows[:, 4] = words.bos, POISON, words.bos
    return rows, middle[:, 1:]


@pytest.mark.parametrize("value", [1e4, -1e15])
def test_padding_reaches_neither_loss_nor_gradient(value: float, words: Tokenizer, tmp_path: Path) -> None:
    model, rows = decoder(words), uneven(words)
    batches = batches_of(rows, words, 4, tmp_path)
    loss, clean = gradients(model, batches)
    poisoned(model, words.pad, value)
    dirty_loss, dirty = gradients(model, batches)
    assert dirty_loss == loss
    assert_same(clean, dirty)


@pytest.mark.parametrize("value", [1e4, -1e15])
def test_a_document_reaches_no_loss_and_no_gradient_of_its_neighbours(
    value: float, words: Tokenizer, tmp_path: Path
) -> None:
    """The poisoned document's own targets are taken out, so nothing of it may be left."""
    model, (rows, middle) = decoder(words), three_documents(words)
    (batch,) = batches_of(rows, words, 8, tmp_path)
    others = replace(batch, weights=batch.weights.masked_fill(torch.from_numpy(middle), 0.0))
    assert (rows == POISON).sum() == 16 and others.weights.sum() > 0.5
    loss, clean = gradients(model, [others])
    poisoned(model, POISON, value)
    dirty_loss, dirty = gradients(model, [others])
    assert dirty_loss == loss
    assert_same(clean, dirty)
    with_it, _ = gradients(model, [batch])
    assert with_it != pytest.approx(gradients(decoder(words), [batch])[0], abs=1e-3), "the poison works"


def assert_same(clean: dict[str, Tensor], dirty: dict[str, Tensor]) -> None:
    """Equal to the bit."""
    for name in clean:
        assert torch.equal(clean[name], dirty[name]), name


def planted(what: Callable[[TokenBatch], TokenBatch], steps: set[int]) -> Callable[..., Any]:
    """Stands in for the stage's batches: those of `steps` are changed."""

    def batches(*arguments: Any) -> list[TokenBatch]:
        made, step = step_batches(*arguments), arguments[-1]
        return [what(one) if step in steps else one for one in made]

    return batches


def garbage(batch: TokenBatch) -> TokenBatch:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 250, batch.ids.shape, generator=generator)
    return replace(batch, ids=ids, targets=ids.roll(1, 1))


def infinite(batch: TokenBatch) -> TokenBatch:
    return replace(batch, weights=batch.weights * math.inf)


def not_a_number(batch: TokenBatch) -> TokenBatch:
    return replace(batch, weights=batch.weights * math.nan)


def documents_of(given: Inputs, step: int) -> set[str]:
    """The documents of a step, row by row."""
    rows = PackedDataset(given.tokens.path / "train.npy")
    chosen = set(sample_indices(len(rows), ROWS, step, 0).tolist())
    spans = pq.read_table(given.tokens.path / "train_spans.parquet").to_pylist()
    return {span["document"] for span in spans if span["row"] in chosen}


@pytest.mark.parametrize(
    ("plant", "said"), [(garbage, "spiked"), (infinite, "was inf"), (not_a_number, "was nan")]
)
def test_a_batch_that_breaks_pretraining_is_survived_and_its_documents_are_named(
    plant: Callable[[TokenBatch], TokenBatch],
    said: str,
    given: Inputs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stage, "step_batches", planted(plant, {70}))
    made = build(tmp_path, given, 80, REST)
    metrics = made.metrics()
    assert (metrics["skipped_steps"], metrics["transient_steps"], metrics["steps"]) == (1, 0, 80)
    (line,) = read_metrics(made.path / "skipped.jsonl")
    assert line["step"] == 71 and said in line["reason"]
    assert set(line["documents"]) == documents_of(given, 70) and len(line["documents"]) >= ROWS
    (logged,) = [one for one in read_metrics(made.path / "metrics.jsonl") if one.get("skipped")]
    assert logged["documents"] == line["documents"] and logged["step"] == 71
    assert metrics["val_bpb"] < 8


def test_pretraining_on_healthy_text_skips_nothing(given: Inputs, tmp_path: Path) -> None:
    made = build(tmp_path, given, 200, REST)
    assert (made.metrics()["skipped_steps"], made.metrics()["transient_steps"]) == (0, 0)
    assert not (made.path / "skipped.jsonl").exists()


def test_three_broken_batches_in_a_row_end_pretraining_with_their_documents(
    given: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(stage, "step_batches", planted(not_a_number, {20, 21, 22}))
        with pytest.raises(
            TrainingError, match=r"pretrain: 3 consecutive steps up to step 23.*doc-.*from step 20"
        ):
            build(tmp_path / "rough", given, 30)
    (part,) = (tmp_path / "rough" / "artifacts").glob("*.part")
    assert (
        json.loads((part / "resume" / "step-000000020" / "state.json").read_text())["progress"]["step"] == 20
    )
    rough, calm = build(tmp_path / "rough", given, 30), build(tmp_path / "calm", given, 30)
    assert (rough.path / "model.safetensors").read_bytes() == (calm.path / "model.safetensors").read_bytes()
