"""Bits per byte against a plain count."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.tokens import bpe
from groundup.tokens.shards import PackedDataset
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.batches import token_batch
from groundup.train.validate import bits_per_byte, token_loss

TEXT = "the cat sat on the mat, and the Katze saß auf der Matte. "


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_merges(bpe.train(iter([TEXT * 20]), 300))


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Decoder:
    made = Decoder(DecoderConfig(tokenizer.vocab_size, 32, 2, 2, 2, 16, 64))
    made.init_weights(1)
    with torch.no_grad():
        made.model.embed_tokens.weight.mul_(20)
        made.lm_head.weight.mul_(20)
    return made


def rows_on_disk(folder: Path, rows: list[list[int]]) -> PackedDataset:
    np.save(folder / "rows.npy", np.array(rows, dtype=np.uint16))
    return PackedDataset(folder / "rows.npy")


def test_each_document_is_scored_as_if_alone_and_divided_by_its_bytes(
    tokenizer: Tokenizer, model: Decoder, tmp_path: Path
) -> None:
    texts = ["the cat saß", " on the mat, and", "der Matte."]
    documents = [[tokenizer.bos, *tokenizer.encode(text), tokenizer.eos] for text in texts]
    packed = [*documents[0], *documents[1]]
    width = max(len(packed), len(documents[2])) + 3
    pad = tokenizer.pad
    rows = rows_on_disk(tmp_path, [(part + [pad] * width)[:width] for part in (packed, documents[2])])
    nats = 0.0
    with torch.no_grad():
        for ids in documents:
            log_probs = model(torch.tensor([ids]))[0].double().log_softmax(dim=-1)
            nats -= sum(float(log_probs[i, ids[i + 1]]) for i in range(len(ids) - 1))
    expected = nats / math.log(2) / sum(len(text.encode()) for text in texts)
    assert bits_per_byte(partial(token_loss, model), rows, tokenizer) == pytest.approx(expected, rel=1e-5)
    assert bits_per_byte(partial(token_loss, model), rows, tokenizer, batch_rows=1) == pytest.approx(
        expected, rel=1e-5
    )


def test_beginnings_and_padding_are_no_targets(tokenizer: Tokenizer) -> None:
    bos, eos, pad = tokenizer.bos, tokenizer.eos, tokenizer.pad
    batch = token_batch(np.array([[bos, 10, 11, eos, bos, 12, pad]]), tokenizer)
    assert batch.targets.tolist() == [[10, 11, eos, bos, 12, pad]]
    assert batch.weights.tolist() == [[1, 1, 1, 0, 1, 0]]
