"""Duplicate clusters: one document of every cluster is kept.

in:  signature folders, one per shard, in corpus order
out: Duplicates: every document to drop, the one that is kept, and their similarity
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundup.core.errors import BlueprintError
from groundup.text.curate.dedup import Dedup
from groundup.text.curate.dedup.verify_pairs import Floats, ShingleStore, components, verify_pairs
from groundup.text.segment import Hashes, Ints


@dataclass(frozen=True)
class Duplicates:
    """[dropped] each, ordered by shard and row; `shard` counts the folders, `row` the documents in one.

    `similarity` is the true Jaccard of the dropped and the kept document; it can be below the recipe's bound where
    documents are connected through others. `kind` is "exact" where exact keys are equal, else "near".
    """

    shard: Ints
    row: Ints
    kept_shard: Ints
    kept_row: Ints
    similarity: Floats
    kind: NDArray[np.str_]


def find_duplicates(folders: Sequence[Path], recipe: Dedup, scores: Floats | None = None) -> Duplicates:
    """Find all duplicates, in about 150 bytes of memory per document.

    `scores` [documents], over all shards in order, decide with `keep = "best"`; NaN loses to any other. Raises
    BlueprintError if they are missing then.
    """
    keys, sizes, bounds = _load(folders)
    documents = np.arange(len(sizes))
    first = _first_with_key(keys) if recipe.exact else documents
    left = right = np.zeros(0, np.int64)
    sets = ShingleStore(folders) if recipe.fuzzy else None
    if sets is not None:
        eligible = np.flatnonzero((first == documents) & (sets.sizes > 0))
        left, right = verify_pairs(folders, sets, eligible, recipe.similarity)
    cluster = components(len(documents), np.append(left, first), np.append(right, documents))
    kept = _kept(cluster, _rank(recipe, sizes, scores))
    dropped = np.flatnonzero(kept != documents)
    kept = kept[dropped]
    exact = (keys[:, dropped] == keys[:, kept]).all(axis=0)
    similarity = np.ones(len(dropped))
    if sets is not None:
        similarity[~exact] = sets.similarities(kept[~exact], dropped[~exact])
    kind = np.where(exact, "exact", "near")
    return Duplicates(*_place(dropped, bounds), *_place(kept, bounds), similarity, kind)


def _load(folders: Sequence[Path]) -> tuple[Hashes, Ints, Ints]:
    """Exact keys [2, documents], bytes [documents], and the number of each shard's first document [shards + 1]."""
    keys = [np.zeros((2, 0), np.uint64), *(np.load(folder / "keys.npy") for folder in folders)]
    sizes = [np.zeros(0, np.int64), *(np.load(folder / "bytes.npy") for folder in folders)]
    bounds = np.cumsum([len(size) for size in sizes])
    return np.concatenate(keys, axis=1), np.concatenate(sizes), bounds


def _first_with_key(keys: Hashes) -> Ints:
    """[documents]: earliest document with the same key."""
    order = np.lexsort(keys)  # stable: equal keys stay in order
    new = np.ones(len(order), dtype=bool)
    new[1:] = (keys[:, order[1:]] != keys[:, order[:-1]]).any(axis=0)
    first = np.empty_like(order)
    first[order] = order[new][np.cumsum(new) - 1]
    return first


def _rank(recipe: Dedup, sizes: Ints, scores: Floats | None) -> Floats:
    """[documents]: rank; the highest is kept."""
    if recipe.keep == "longest":
        return sizes.astype(np.float64)
    if recipe.keep == "earliest":
        return np.zeros(len(sizes))
    if scores is None:
        raise BlueprintError(
            'curate.dedup.keep = "best" needs a step that scores documents. '
            'Add a classifier to curate.steps, or set keep = "longest".'
        )
    assert len(scores) == len(sizes), (len(scores), len(sizes))
    return np.nan_to_num(scores, nan=-np.inf, posinf=np.inf, neginf=-np.inf)


def _kept(cluster: Ints, rank: Floats) -> Ints:
    """[documents]: the highest-ranked of each one's cluster; ties go to the earliest."""
    order = np.lexsort((-rank, cluster))
    new = np.ones(len(order), dtype=bool)
    new[1:] = cluster[order[1:]] != cluster[order[:-1]]
    kept = np.empty_like(order)
    kept[order] = order[new][np.cumsum(new) - 1]
    return kept


def _place(documents: Ints, bounds: Ints) -> tuple[Ints, Ints]:
    """Shard and row of each document."""
    shard = np.searchsorted(bounds, documents, side="right") - 1
    return shard, documents - bounds[shard]
