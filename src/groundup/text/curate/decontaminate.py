"""Documents that contain evaluation items, found by shared n-grams of words.

in:  files of evaluation items (every text in a record counts), and documents
out: which item was met in which document; the document is dropped, or the item is reported

An item is met if a document shares an n-gram of `ngram` words with it (13 in GPT-3, Brown et al. 2020, appendix C), or
all of its words if it has fewer. Words are lower-cased and without punctuation. Items of fewer than `min_words` words
would be met by chance everywhere; they are counted and left out.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

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
"""item: `file#line`; task: the file; id: the document; overlap: n-grams shared; text: the words of the first."""


class Decontaminate(Recipe):
    """Which evaluation items must not be in the corpus. Without `paths`, nothing is compared."""

    paths: tuple[str, ...] = Field(
        default=(),
        description="evaluation sets (JSON lines, also packed, or Parquet): every text in them counts",
    )
    ngram: int = Field(default=13, ge=2, description="words that an item and a document must share in a row")
    min_words: int = Field(default=8, ge=1, description="items with fewer words aren't looked for")
    drop: Literal["document", "item"] = Field(
        default="document", description="what goes: the document, or (in the report) the evaluation item"
    )


@dataclass(frozen=True)
class Index:
    """n-grams of the items, sorted by hash. `lengths` are the n that occur: `ngram`, and those of short items."""

    hashes: Hashes
    item: Ints
    length: Ints
    names: list[str]

    def lookup(self, keys: Hashes, n: int) -> tuple[Ints, Ints]:
        """(index into keys, item) for every match among the n-grams of n words."""
        mine = self.length == n
        hashes, items = self.hashes[mine], self.item[mine]
        low, high = np.searchsorted(hashes, keys, "left"), np.searchsorted(hashes, keys, "right")
        counts = high - low
        found = np.repeat(np.arange(len(keys)), counts)
        within = np.arange(len(found)) - np.repeat(np.cumsum(counts) - counts, counts)
        return found, items[np.repeat(low, counts) + within]


def write_index(
    recipe: Decontaminate, items: Iterator[tuple[str, list[str]]], folder: Path
) -> dict[str, int]:
    """Index the items (name, texts) into `folder`. Returns how many there are, and how many are too short.

    Raises DataError if there is not a single one.
    """
    found: list[tuple[Hashes, Ints, int]] = []
    names: list[str] = []
    short = 0
    for name, texts in items:
        number, used = len(names), False
        for n, keys in _item_ngrams(recipe, texts):
            found.append((keys, np.full(len(keys), number), n))
            used = True
        short += not used
        names.append(name)
    if not names:
        raise DataError(f"curate.decontaminate.paths: no evaluation item in {', '.join(recipe.paths)}")
    hashes = np.concatenate([np.zeros(0, np.uint64), *(keys for keys, _, _ in found)])
    item = np.concatenate([np.zeros(0, np.int64), *(numbers for _, numbers, _ in found)])
    length = np.concatenate([np.zeros(0, np.int64), *(np.full(len(keys), n) for keys, _, n in found)])
    order = np.argsort(hashes, kind="stable")
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "items.npz", hashes=hashes[order], item=item[order], length=length[order])
    write_json(folder / "items.json", names)
    return {"items": len(names), "items_too_short": short}


def _item_ngrams(recipe: Decontaminate, texts: list[str]) -> Iterator[tuple[int, Hashes]]:
    """(n, distinct hashes) of an item's texts; a text shorter than the n-gram is one n-gram of its own length."""
    for text in texts:
        pieces = _plain(text)
        words = len(pieces.start)
        n = min(recipe.ngram, words)
        if words >= recipe.min_words:
            yield n, np.unique(ngrams(pieces, n)[0])


def _plain(text: str) -> Spans:
    blank = {"id": [""], "text": [text], "source": [""], "path": [""], "language": [""], "licence": [""]}
    return DocumentBatch(pa.table(blank)).plain_words


class Decontaminator:
    """Judges documents by an index."""

    def __init__(self, recipe: Decontaminate, index: Index) -> None:
        self.recipe, self.index = recipe, index
        self._found: tuple[DocumentBatch, NDArray[Any]] | None = None

    @classmethod
    def load(cls, recipe: Decontaminate, folder: Path) -> "Decontaminator":
        """From what `write_index` wrote."""
        arrays = np.load(folder / "items.npz")
        names = json.loads((folder / "items.json").read_text(encoding="utf-8"))
        return cls(recipe, Index(arrays["hashes"], arrays["item"], arrays["length"], names))

    def apply(self, batch: DocumentBatch) -> FilterResult:
        """Drops what meets an item, unless it's the item that goes; the value is the number of items met."""
        matches = self._matches(batch)
        pairs = np.unique(matches[:, :2], axis=0)
        met = np.bincount(pairs[:, 0], minlength=batch.rows)
        drop = self.recipe.drop == "document"
        first = {int(row): self.index.names[item] for row, item in pairs[::-1]}
        reason: list[str | None] = ["evaluation_item" if drop and count else None for count in met]
        value = [float(count) if drop and count else None for count in met]
        detail = [f"contains {first[row]}" if row in first else "" for row in range(batch.rows)]
        return FilterResult(
            reason,
            value,
            [0.0 if why else None for why in reason],
            detail,
            measures={"items": met.astype(float)},
        )

    def hits(self, batch: DocumentBatch, alive: NDArray[np.bool_]) -> pa.Table:
        """HITS_SCHEMA: which item was met where, for the documents that are still there."""
        matches = self._matches(batch)
        matches = matches[alive[matches[:, 0]]] if len(matches) else matches
        pairs, first, counts = np.unique(matches[:, :2], axis=0, return_index=True, return_counts=True)
        ids, words = batch.strings("id"), batch.plain_words
        rows = []
        for (row, item), at, overlap in zip(pairs, first, counts, strict=True):
            begin, n = matches[at, 2], matches[at, 3]
            said = bytes(words.data[words.start[begin] : words.end[begin + n - 1]]).decode("utf-8", "replace")
            name = self.index.names[item]
            rows.append(
                {
                    "item": name,
                    "task": name.rsplit("#", 1)[0],
                    "id": ids[row],
                    "overlap": int(overlap),
                    "text": said,
                }
            )
        return pa.Table.from_pylist(rows, HITS_SCHEMA)

    def _matches(self, batch: DocumentBatch) -> NDArray[np.int64]:
        """[matches, 4]: document, item, first word, words of every shared n-gram."""
        if self._found is not None and self._found[0] is batch:
            return self._found[1]
        words = batch.plain_words
        parts = [np.zeros((0, 4), np.int64)]
        for n in np.unique(self.index.length):
            keys, first = ngrams(words, int(n))
            found, item = self.index.lookup(keys, int(n))
            begin = first[found]
            parts.append(np.stack([words.document[begin], item, begin, np.full(len(begin), n)], axis=1))
        self._found = batch, np.concatenate(parts)
        return self._found[1]
