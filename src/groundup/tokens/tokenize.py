"""Stage `tokenize`: documents -> packed sequences of token ids, train and validation.

in:  documents, tokenizer
out: train.npy, validation.npy [sequences, seq_len + 1]; *_spans.parquet: which document is at which position

A document is <|begin_of_text|>, its ids, <|end_of_text|>. Every token is placed exactly once. The first token of a
packed sequence has no context and is never a target: one target in seq_len is lost where a document continues.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from groundup.core.errors import DataError
from groundup.core.recipe import Recipe
from groundup.core.rng import hash_fraction
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, Metrics, StageContext, stage
from groundup.text.documents import iter_tables, strings
from groundup.tokens.packing import pack
from groundup.tokens.shards import PackedWriter, id_dtype
from groundup.tokens.tokenizer import Tokenizer

SPLITS = ("train", "validation")
WINDOW_TOKENS = 16_000_000
"""Tokens packed at a time: sequences mix documents of one window, and memory stays bounded."""
_SPAN_FIELDS: dict[str, pa.DataType] = {
    "row": pa.int64(),
    "offset": pa.int32(),
    "length": pa.int32(),
    "document": pa.string(),
    "start": pa.int64(),
}
SPAN_SCHEMA = pa.schema([pa.field(name, kind) for name, kind in _SPAN_FIELDS.items()])


class Tokenize(Recipe):
    """Length of packed sequences, and the validation split."""

    seq_len: int = Field(default=512, ge=8, le=2**20, description="context length in tokens")
    validation_share: float = Field(default=0.05, gt=0, lt=1, description="share of documents for validation")


@stage(version=1, kind="token_dataset", headline=("tokens", "train_rows", "validation_rows"))
def tokenize(
    recipe: Tokenize, runtime: Runtime, context: StageContext, documents: Artifact, tokenizer: Artifact
) -> Metrics:
    """Encode, split by document hash, and pack."""
    trained = Tokenizer.load(tokenizer.path)
    validation = _validation_ids(documents.path, recipe.validation_share)
    total = documents.metrics().get("documents_kept")
    with ExitStack() as stack:
        splits = {
            name: stack.enter_context(_Split(context, name, recipe.seq_len + 1, trained)) for name in SPLITS
        }
        tracker = stack.enter_context(context.track("tokenize", total, "documents"))
        for table in iter_tables(documents.path):
            ids, texts = strings(table, "id"), strings(table, "text")
            for name, split in splits.items():
                wanted = [
                    index for index, key in enumerate(ids) if (key in validation) == (name == "validation")
                ]
                split.add([ids[index] for index in wanted], [texts[index] for index in wanted])
            tracker.advance(table.num_rows)
    metrics: Metrics = {}
    for name, split in splits.items():
        metrics |= {f"{name}_{key}": value for key, value in split.counts().items()}
    placed = metrics["train_tokens"] + metrics["validation_tokens"]
    encoded = sum(split.encoded for split in splits.values())
    places = (metrics["train_rows"] + metrics["validation_rows"]) * (recipe.seq_len + 1)
    assert placed == encoded, f"{encoded} tokens encoded, {placed} placed"
    return metrics | {
        "tokens": placed,
        "tokens_dropped": encoded - placed,
        "padding_share": 1 - placed / places,
        "encoder": trained.encoder_name,
    }


@dataclass(frozen=True)
class _Waiting:
    """Documents of a split that are encoded but not yet packed."""

    document: str
    ids: np.ndarray


class _Split:
    """Writer of one split."""

    def __init__(self, context: StageContext, name: str, width: int, tokenizer: Tokenizer) -> None:
        self._width, self._tokenizer = width, tokenizer
        self._rows = PackedWriter(context.file(f"{name}.npy"), width, id_dtype(tokenizer.vocab_size))
        self._spans = pq.ParquetWriter(context.file(f"{name}_spans.parquet"), SPAN_SCHEMA, compression="zstd")
        self._waiting: list[_Waiting] = []
        self._size = self.encoded = self._placed = self._bytes = self._documents = 0

    def __enter__(self) -> Self:
        self._rows.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, t: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._spans.close()
        self._rows.__exit__(kind, e, t)

    def add(self, documents: list[str], texts: list[str]) -> None:
        if not documents:
            return
        batch = self._tokenizer.encode_arrays(texts)
        ends = np.cumsum(batch.counts)
        for document, text, end, count in zip(documents, texts, ends, batch.counts, strict=True):
            body = batch.ids[end - count : end].astype(np.int64)
            ids = np.concatenate(([self._tokenizer.bos], body, [self._tokenizer.eos]))
            self._waiting.append(_Waiting(document, ids))
            self._size += len(ids)
            self._bytes += len(text.encode("utf-8", "replace"))
        self._documents += len(documents)
        if self._size >= WINDOW_TOKENS:
            self._flush()

    def counts(self) -> dict[str, int]:
        return {
            "rows": self._rows.rows,
            "tokens": self._placed,
            "bytes": self._bytes,
            "documents": self._documents,
        }

    def _flush(self) -> None:
        pieces = pack([len(item.ids) for item in self._waiting], self._width)
        first = self._rows.rows
        block = np.full((max((p.row for p in pieces), default=-1) + 1, self._width), self._tokenizer.pad)
        for piece in pieces:
            ids = self._waiting[piece.sequence].ids
            end = piece.offset + piece.length
            block[piece.row, piece.offset : end] = ids[piece.start : piece.start + piece.length]
            self._placed += piece.length
        self._rows.write(block)
        spans = {
            "row": [first + piece.row for piece in pieces],
            "offset": [piece.offset for piece in pieces],
            "length": [piece.length for piece in pieces],
            "document": [self._waiting[piece.sequence].document for piece in pieces],
            "start": [piece.start for piece in pieces],
        }
        self._spans.write_table(pa.table(spans, schema=SPAN_SCHEMA))
        self.encoded += self._size
        self._waiting, self._size = [], 0


def _validation_ids(documents: Path, share: float) -> set[str]:
    """Ids below the share; at least one document on either side.

    Raises DataError for a corpus of a single document.
    """
    ids = sorted(set(_all_ids(documents)), key=hash_fraction)
    if len(ids) < 2:
        raise DataError(
            f"the corpus has {len(ids)} document: training needs one to learn from and another to be measured on. "
            "Add more files, or divide the text into several"
        )
    below = sum(hash_fraction(key) < share for key in ids)
    return set(ids[: min(max(1, below), len(ids) - 1)])


def _all_ids(documents: Path) -> Iterator[str]:
    for table in iter_tables(documents):
        yield from strings(table, "id")
