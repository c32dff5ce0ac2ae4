"""Packing: every token once, borders only at beginnings, rows well filled."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.core.errors import DataError
from groundup.core.records import Document
from groundup.core.rng import hash_fraction
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, StageContext
from groundup.tokens.loader import sample_indices
from groundup.tokens.packing import best_fit, pack
from groundup.tokens.shards import PackedDataset
from groundup.tokens.tokenize import Tokenize, tokenize
from groundup.tokens.tokenizer import Tokenizer

LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=60)


@given(LENGTHS, st.integers(2, 70))
@settings(max_examples=200, deadline=None)
def test_every_token_is_placed_exactly_once(lengths: list[int], capacity: int) -> None:
    pieces = pack(lengths, capacity)
    placed = sorted((p.sequence, p.start + i) for p in pieces for i in range(p.length))
    assert placed == [(sequence, at) for sequence, length in enumerate(lengths) for at in range(length)]
    places = [(p.row, p.offset + i) for p in pieces for i in range(p.length)]
    assert len(set(places)) == len(places)
    assert all(0 <= offset < capacity for _, offset in places)
    assert {row for row, _ in places} == set(range(max(row for row, _ in places) + 1))


@given(LENGTHS, st.integers(2, 70))
@settings(max_examples=100, deadline=None)
def test_what_does_not_begin_a_sequence_fills_a_whole_row(lengths: list[int], capacity: int) -> None:
    for piece in pack(lengths, capacity):
        assert piece.start == 0 or (piece.offset == 0 and piece.length == capacity)


def test_best_fit_takes_the_fullest_row_that_holds_a_piece() -> None:
    # 6 opens a row with room 4, 5 one with room 5; the 4 fits the first exactly, the 3 goes to the second.
    assert best_fit([3, 6, 4, 5], 10) == [(1, 5), (0, 0), (0, 6), (1, 0)]


def test_rows_of_many_short_sequences_are_almost_full() -> None:
    lengths = np.random.default_rng(0).integers(10, 300, 3000).tolist()
    rows = max(piece.row for piece in pack(lengths, 513)) + 1
    assert sum(lengths) / (rows * 513) > 0.99


def documents(count: int) -> list[Document]:
    body = "the pieces are learnt from the text, and it's simple. "
    return [Document(f"id{n}", f"number {n}: " + body * (1 + n % 9), "s", f"{n}.txt") for n in range(count)]


def run(
    work: StageContext, runtime: Runtime, tokenizer: Tokenizer, raw: Artifact, tmp_path: Path, **recipe
) -> dict:
    folder = tmp_path / "tokenizer"
    tokenizer.save(folder)
    return tokenize(Tokenize(**recipe), runtime, work, raw, Artifact(folder, "t", "tokenizer", "tokenizer"))


def test_spans_give_every_document_back(
    work: StageContext,
    runtime: Runtime,
    tokenizer: Tokenizer,
    publish: Callable[..., Artifact],
    tmp_path: Path,
) -> None:
    texts = documents(80)
    metrics = run(work, runtime, tokenizer, publish(texts), tmp_path, seq_len=64, validation_share=0.1)
    found: dict[str, dict[int, list[int]]] = {}
    for split in ("train", "validation"):
        rows = PackedDataset(work.path / f"{split}.npy")
        assert rows.width == 65 and len(rows) == metrics[f"{split}_rows"]
        for span in pq.read_table(work.path / f"{split}_spans.parquet").to_pylist():
            here = rows[span["row"]][span["offset"] : span["offset"] + span["length"]]
            found.setdefault(span["document"], {})[span["start"]] = here.tolist()
            assert (split == "validation") == (hash_fraction(span["document"]) < 0.1)
    for item in texts:
        ids = [token for _, part in sorted(found[item.id].items()) for token in part]
        assert ids == [tokenizer.bos, *tokenizer.encode(item.text), tokenizer.eos]
    assert metrics["tokens_dropped"] == 0
    assert metrics["tokens"] == sum(len(tokenizer.encode(item.text)) + 2 for item in texts)
    held = [item.text for item in texts if hash_fraction(item.id) < 0.1]
    assert metrics["validation_bytes"] == sum(len(text.encode()) for text in held)


def test_windows_lose_nothing(
    work: StageContext,
    runtime: Runtime,
    tokenizer: Tokenizer,
    publish: Callable[..., Artifact],
    tmp_path: Path,
    monkeypatch,
) -> None:
    monkeypatch.setattr("groundup.tokens.tokenize.WINDOW_TOKENS", 100)
    texts = documents(50)
    metrics = run(work, runtime, tokenizer, publish(texts), tmp_path, seq_len=32, validation_share=0.2)
    assert metrics["tokens"] == sum(len(tokenizer.encode(item.text)) + 2 for item in texts)


def test_two_documents_are_enough_and_one_is_not(
    work: StageContext,
    runtime: Runtime,
    tokenizer: Tokenizer,
    publish: Callable[..., Artifact],
    tmp_path: Path,
) -> None:
    metrics = run(work, runtime, tokenizer, publish(documents(2)), tmp_path, seq_len=64)
    assert metrics["train_rows"] >= 1 and metrics["validation_rows"] >= 1
    with pytest.raises(DataError, match="Add more files"):
        run(work, runtime, tokenizer, publish(documents(1)), tmp_path, seq_len=64)


def test_an_epoch_reads_every_row_once_whatever_the_batch() -> None:
    for batch in (1, 3, 8):
        steps = -(-40 // batch)
        read = np.concatenate([sample_indices(40, batch, step, seed=7) for step in range(steps)])[:40]
        assert sorted(read.tolist()) == list(range(40))
    wide, narrow = sample_indices(40, 8, 3, 7), [sample_indices(40, 4, step, 7) for step in (6, 7)]
    assert wide.tolist() == np.concatenate(narrow).tolist()
    assert sample_indices(40, 40, 0, 7).tolist() != sample_indices(40, 40, 1, 7).tolist()
