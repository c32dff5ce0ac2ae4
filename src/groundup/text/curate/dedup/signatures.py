"""Deduplication signatures of one shard, as a folder of NumPy files.

in:  a shard's documents, batch by batch
out: keys.npy [2, documents], bytes.npy [documents]
     with fuzzy also sizes.npy [documents], shingles.npy [sum of sizes], bands.npy [bands, documents]
     with lines also lines.npy [spans], lines.counts.npy [documents]; with paragraphs likewise
"""

import hashlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.text.batch import DocumentBatch
from groundup.text.curate.dedup import Dedup
from groundup.text.curate.dedup.minhash import band_keys, minhash, permutations, shingles
from groundup.text.curate.dedup.repeated_spans import kinds, spans
from groundup.text.documents import DOCUMENT_SCHEMA

_SPACES = b" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f"
"""ASCII white space of `str.split`."""


def write_signatures(folder: Path, batches: Iterable[DocumentBatch], recipe: Dedup) -> None:
    """Write the files above for one shard. Creates the folder; existing files are replaced."""
    empty = signatures(DocumentBatch(DOCUMENT_SCHEMA.empty_table()), recipe)
    parts = [empty, *(signatures(batch, recipe) for batch in batches)]
    folder.mkdir(parents=True, exist_ok=True)
    for name in empty:
        np.save(folder / f"{name}.npy", np.concatenate([part[name] for part in parts], axis=-1))


def signatures(batch: DocumentBatch, recipe: Dedup) -> dict[str, NDArray[Any]]:
    """The arrays of the files above, for one batch."""
    keys = b"".join(text_key(text) for text in batch.texts)
    arrays: dict[str, NDArray[Any]] = {
        "keys": np.frombuffer(keys, "<u8").reshape(-1, 2).T,
        "bytes": batch.bytes,
    }
    if recipe.fuzzy:
        sets, first = shingles(batch.plain_words, recipe.ngram)
        minimum = minhash(sets, first, permutations(recipe.bands * recipe.rows, recipe.seed))
        arrays |= {
            "sizes": np.diff(first),
            "shingles": sets,
            "bands": band_keys(minimum, recipe.bands, recipe.rows),
        }
    for kind, run in kinds(recipe.lines, recipe.paragraphs).items():
        trimmed, _ = spans(batch, run)
        arrays |= {kind: trimmed.hashes, f"{kind}.counts": trimmed.counts}
    return arrays


def text_key(text: str) -> bytes:
    """16-byte hash of a text without white space, NFC-normalised."""
    if text.isascii():
        letters = text.encode().translate(None, _SPACES)
    else:
        letters = "".join(unicodedata.normalize("NFC", text).split()).encode()
    return hashlib.sha256(letters).digest()[:16]
