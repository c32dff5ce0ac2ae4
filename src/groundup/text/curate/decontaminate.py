"""Decontamination: documents that contain evaluation items, found by shared word n-grams.

in:  files of evaluation items (every text in a record counts), and documents
out: which item matched which document; the document is dropped, or the item is reported

An item matches a document that shares an n-gram of `ngram` words with it (13 in GPT-3, Brown et al. 2020, appendix C),
or all of its words if it has fewer. Words are lower-cased and without punctuation. Items of fewer than `min_words`
words match by chance; they are counted and not indexed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from groundup.core.atomic_io import write_json
from groundup.core.errors import DataError
from groundup.core.recipe import Recipe
from groundup.text.batch import DocumentBatch
from groundup.text.curate.types import FilterResult
from groundup.text.segment import Hashes, Ints, Spans, ngrams

HITS_SCHEMA = pa.schema(
    [
        pa.field(name, pa.int64() if name == "overlap" else pa.string())
        for name in ("item", "task", "id", "overlap", "text")
    ]
)
"""item: `file#line`; task: the file; id: the document; overlap: shared n-grams; text: words of the first one."""


class Decontaminate(Recipe):
    """Removal of documents that contain evaluation items. Without `paths`, nothing is compared."""

    paths: tuple[str, ...] = Field(
        default=(),
        description="evaluation sets (JSON lines, also compressed, or Parquet): every text in them counts",
    )
    ngram: int = Field(
        default=13, ge=2, description="n-gram length in words: consecutive words shared by item and document"
    )
    min_words: int = Field(default=8, ge=1, description="items with fewer words are not searched for")
    min_distinct: int = Field(
        default=5,
        ge=1,
        description="distinct words of more than one letter that an n-gram needs to be searched for: a table of "
        "zeros is in many documents",
    )
    drop: Literal["document", "item"] = Field(
        default="document",
        description="what is removed: the document, or (in the report) the evaluation item",
    )

    @model_validator(mode="after")
    def _grams_can_match(self) -> Self:
        if self.min_distinct > self.ngram:
            raise ValueError(
                f"min_distinct = {self.min_distinct} is more than the ngram = {self.ngram} words of an n-gram: nothing "
                "can match"
            )
        return self

    def without_effect(self) -> dict[str, str]:
        """See `Strict`."""
        keys = ("ngram", "min_words", "min_distinct", "drop")
        return {} if self.paths else dict.fromkeys(keys, "paths is empty, so nothing is compared")


OVERLAPS = (100, 75, 50, 25)
"""Shares of the words of an item's longest text (the question, usually) at which its recall is reported."""


@dataclass(frozen=True)
class Index:
    """n-grams of the items, sorted by hash. `length` is n: `ngram`, or the word count of a shorter item."""

    hashes: Hashes
    item: Ints
    length: Ints
    names: list[str]

    def lookup(self, keys: Hashes, n: int) -> tuple[Ints, Ints]:
        """(index into keys, item) for every match among the n-grams of n words."""
        same_length = self.length == n
        hashes, items = self.hashes[same_length], self.item[same_length]
        low, high = np.searchsorted(hashes, keys, "left"), np.searchsorted(hashes, keys, "right")
        counts = high - low
        matched = np.repeat(np.arange(len(keys)), counts)
        offset = np.arange(len(matched)) - np.repeat(np.cumsum(counts) - counts, counts)
        return matched, items[np.repeat(low, counts) + offset]


def write_index(
    recipe: Decontaminate, items: Iterator[tuple[str, list[str]]], folder: Path
) -> dict[str, int]:
    """Writes the index of the items (name, texts) into `folder`. Returns the number of items and of short ones.

    Raises DataError if there is no item.
    """
    entries: list[tuple[Hashes, Ints, int]] = []
    names: list[str] = []
    short = 0
    found_at = dict.fromkeys(OVERLAPS, 0)
    for name, texts in items:
        number, indexed = len(names), False
        for percent in found_at:
            found_at[percent] += is_found(recipe, max(texts, key=len, default=""), percent)
        for n, keys in _item_ngrams(recipe, texts):
            entries.append((keys, np.full(len(keys), number), n))
            indexed = True
        short += not indexed
        names.append(name)
    if not names:
        raise DataError(f"curate.decontaminate.paths: {', '.join(recipe.paths)} contain no evaluation items")
    hashes = np.concatenate([np.zeros(0, np.uint64), *(keys for keys, _, _ in entries)])
    item = np.concatenate([np.zeros(0, np.int64), *(numbers for _, numbers, _ in entries)])
    length = np.concatenate([np.zeros(0, np.int64), *(np.full(len(keys), n) for keys, _, n in entries)])
    order = np.argsort(hashes, kind="stable")
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "items.npz", hashes=hashes[order], item=item[order], length=length[order])
    write_json(folder / "items.json", names)
    recall = {f"items_found_at_{percent}_percent": count for percent, count in found_at.items()}
    return {"items": len(names), "items_too_short": short} | recall


def _item_ngrams(recipe: Decontaminate, texts: list[str]) -> Iterator[tuple[int, Hashes]]:
    """(n, distinct hashes) of an item's texts; a text shorter than `ngram` words is one n-gram of its length."""
    for text in texts:
        pieces = _plain(text)
        words = len(pieces.start)
        n = min(recipe.ngram, words)
        if words >= recipe.min_words:
            keys, start = ngrams(pieces, n)
            distinctive = _distinctive(recipe, pieces, start, n)
            if distinctive.any():
                yield n, np.unique(keys[distinctive])


def is_found(recipe: Decontaminate, text: str, percent: int) -> bool:
    """Whether a document with the first `percent` of the words of an item's text, and no more of it, matches."""
    pieces = _plain(text)
    words = len(pieces.start)
    n, part = min(recipe.ngram, words), words * percent // 100
    if words < recipe.min_words or n > part:
        return False
    _, start = ngrams(pieces, n)
    return bool((_distinctive(recipe, pieces, start, n) & (start + n <= part)).any())


def _distinctive(recipe: Decontaminate, pieces: Spans, start: Ints, n: int) -> NDArray[np.bool_]:
    """For each n-gram whether it has `min_distinct` distinct words that aren't numbers or single letters."""
    data = bytes(pieces.data)
    words = [data[begin:end].decode() for begin, end in zip(pieces.start, pieces.end, strict=True)]
    content = [word if sum(map(str.isalpha, word)) > word.isascii() else "" for word in words]
    counts = [len({word for word in content[at : at + n] if word}) for at in start]
    return np.array(counts, dtype=np.int64) >= recipe.min_distinct


def _plain(text: str) -> Spans:
    blank = {"id": [""], "text": [text], "source": [""], "path": [""], "language": [""], "licence": [""]}
    return DocumentBatch(pa.table(blank)).plain_words


class Decontaminator:
    """Matches documents against an index."""

    def __init__(self, recipe: Decontaminate, index: Index) -> None:
        self.recipe, self.index = recipe, index
        self._cached_matches: tuple[DocumentBatch, NDArray[Any]] | None = None

    @classmethod
    def load(cls, recipe: Decontaminate, folder: Path) -> "Decontaminator":
        """The decontaminator of an index folder written by `write_index`."""
        arrays = np.load(folder / "items.npz")
        names = json.loads((folder / "items.json").read_text(encoding="utf-8"))
        return cls(recipe, Index(arrays["hashes"], arrays["item"], arrays["length"], names))

    def apply(self, batch: DocumentBatch) -> FilterResult:
        """Drops documents that match an item (with drop = "document"); the value is the number of matched items."""
        matches = self._matches(batch)
        pairs = np.unique(matches[:, :2], axis=0)
        item_counts = np.bincount(pairs[:, 0], minlength=batch.rows)
        drop = self.recipe.drop == "document"
        first_item = {int(row): self.index.names[item] for row, item in pairs[::-1]}
        reason: list[str | None] = ["evaluation_item" if drop and count else None for count in item_counts]
        value = [float(count) if drop and count else None for count in item_counts]
        detail = [f"contains {first_item[row]}" if row in first_item else "" for row in range(batch.rows)]
        return FilterResult(
            reason,
            value,
            [0.0 if why else None for why in reason],
            detail,
            metrics={"items": item_counts.astype(float)},
        )

    def hits(self, batch: DocumentBatch, alive: NDArray[np.bool_]) -> pa.Table:
        """Table of HITS_SCHEMA: matched items for the documents that are `alive`."""
        matches = self._matches(batch)
        matches = matches[alive[matches[:, 0]]] if len(matches) else matches
        pairs, first_match, counts = np.unique(matches[:, :2], axis=0, return_index=True, return_counts=True)
        ids, words = batch.strings("id"), batch.plain_words
        rows = []
        for (row, item), at, overlap in zip(pairs, first_match, counts, strict=True):
            begin, n = matches[at, 2], matches[at, 3]
            shared_words = bytes(words.data[words.start[begin] : words.end[begin + n - 1]]).decode(
                "utf-8", "replace"
            )
            name = self.index.names[item]
            rows.append(
                {
                    "item": name,
                    "task": name.rsplit("#", 1)[0],
                    "id": ids[row],
                    "overlap": int(overlap),
                    "text": shared_words,
                }
            )
        return pa.Table.from_pylist(rows, HITS_SCHEMA)

    def _matches(self, batch: DocumentBatch) -> NDArray[np.int64]:
        """[matches, 4]: document, item, first word, words of every shared n-gram."""
        if self._cached_matches is not None and self._cached_matches[0] is batch:
            return self._cached_matches[1]
        words = batch.plain_words
        parts = [np.zeros((0, 4), np.int64)]
        for n in np.unique(self.index.length):
            keys, first = ngrams(words, int(n))
            matched, item = self.index.lookup(keys, int(n))
            begin = first[matched]
            parts.append(np.stack([words.document[begin], item, begin, np.full(len(begin), n)], axis=1))
        self._cached_matches = batch, np.concatenate(parts)
        return self._cached_matches[1]
