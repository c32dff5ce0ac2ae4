"""Near-duplicate verification: candidate pairs by equal band keys, confirmed by their true Jaccard similarity.

in:  band keys and n-gram sets of all shards, on disk
out: verified pairs, enough to connect every cluster

Locality-sensitive hashing as in Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3. Pairing all
members of a bucket is quadratic in its size. Here the first is compared with the others, then the first of the
remaining ones with the rest, and so on: linear, also for boilerplate that makes up half of a crawl.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.text.curate.dedup.minhash import Shingles
from groundup.text.segment import Hashes, Ints

_ROUNDS = 16
"""Maximum documents of one bucket that are compared with the others in it."""
_AT_ONCE = 1 << 21
"""N-grams in memory at a time, in all pairs being compared."""
_32 = np.uint64(32)

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class ShingleStore:
    """N-gram sets of all documents, read from disk on demand."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._files = [folder / "shingles.npy" for folder in folders]
        sizes = [np.load(folder / "sizes.npy") for folder in folders]
        self.sizes: Ints = np.concatenate([np.zeros(0, np.int64), *sizes])
        self._begin = np.concatenate([np.cumsum(size) - size for size in sizes] or [self.sizes])
        self._offsets = [_offset(file, size.sum()) for file, size in zip(self._files, sizes, strict=True)]
        self._bounds = np.concatenate([[0], np.cumsum([len(size) for size in sizes])])

    def similarities(self, left: Ints, right: Ints) -> Floats:
        """[pairs]: Jaccard similarity |A and B| / |A or B|. Two empty sets have 0."""
        both = self.sizes[left] + self.sizes[right]
        shared = np.zeros(len(left), np.int64)
        for pairs in _portions(both):
            shared[pairs] = self._shared(left[pairs], right[pairs])
        jaccard: Floats = shared / np.maximum(both - shared, 1)
        return jaccard

    def _shared(self, left: Ints, right: Ints) -> Ints:
        """[pairs]: shared n-grams: those that occur twice among a pair's sorted n-grams."""
        documents, place = np.unique(np.concatenate([left, right]), return_inverse=True)
        grams = self._read(documents)
        size = self.sizes[documents]
        first, size = (np.cumsum(size) - size)[place], size[place]
        pair = np.tile(np.arange(len(left)), 2)
        at = np.arange(size.sum()) + np.repeat(first - (np.cumsum(size) - size), size)
        keys = np.repeat(pair, size).astype(np.uint64) << _32 | grams[at]
        keys.sort()
        twice = keys[1:][keys[1:] == keys[:-1]] >> _32
        return np.bincount(twice.astype(np.int64), minlength=len(left))

    def _read(self, documents: Ints) -> Shingles:
        """Concatenated sets of `documents` (ascending). Not memory-mapped: mapped pages would count as our
        memory.
        """
        bytes_of = self.sizes[documents] * 4
        buffer, to = memoryview(bytearray(bytes_of.sum())), np.cumsum(bytes_of)
        cuts = np.searchsorted(documents, self._bounds)
        for shard in np.flatnonzero(np.diff(cuts)):
            in_shard = slice(cuts[shard], cuts[shard + 1])
            at = self._offsets[shard] + self._begin[documents[in_shard]] * 4
            with self._files[shard].open("rb", buffering=0) as file:
                for begin, size, end in zip(at, bytes_of[in_shard], to[in_shard], strict=True):
                    read = os.preadv(file.fileno(), [buffer[end - size : end]], begin)
                    assert read == size, (file.name, read, size)
        return np.frombuffer(buffer, np.uint32)


def _offset(file: Path, length: int) -> int:
    """Offset of the data in an .npy file of this length."""
    stored: Any = np.load(file, mmap_mode="r")
    assert len(stored) == length, (file, len(stored), length)
    offset: int = stored.offset
    return offset


def verify_pairs(
    folders: Sequence[Path], sets: ShingleStore, eligible: Ints, similarity: float
) -> tuple[Ints, Ints]:
    """Pairs of `eligible` documents (numbers over all shards) of at least `similarity`.

    Pairs already connected through others are not compared again.
    """
    cluster = np.arange(len(sets.sizes))
    left = right = np.zeros(0, np.int64)
    for keys in _bands(folders):
        member, bucket = _buckets(keys[eligible], eligible)
        for _ in range(_ROUNDS):
            leader = member[np.searchsorted(bucket, bucket)]
            apart = cluster[member] != cluster[leader]
            member, bucket, leader = member[apart], bucket[apart], leader[apart]
            if not len(member):
                break
            linked = _near(sets, leader, member, similarity)
            left, right = np.append(left, leader[linked]), np.append(right, member[linked])
            member, bucket = member[~linked], bucket[~linked]
        cluster = components(len(cluster), left, right)
    return left, right


def _near(sets: ShingleStore, left: Ints, right: Ints, similarity: float) -> Mask:
    """[pairs]: whether two documents are near-duplicates."""
    small, large = np.sort([sets.sizes[left], sets.sizes[right]], axis=0)
    near: Mask = small >= similarity * large  # the smaller set over the larger bounds their Jaccard
    near[near] = sets.similarities(left[near], right[near]) >= similarity
    return near


def _bands(folders: Sequence[Path]) -> Iterator[Hashes]:
    """[documents] band keys, one band after the other."""
    files = [folder / "bands.npy" for folder in folders]
    count = len(np.load(files[0], mmap_mode="r")) if files else 0
    for band in range(count):  # copied, since each mapping keeps a file open
        yield np.concatenate([np.array(np.load(file, mmap_mode="r")[band]) for file in files])


def _buckets(keys: Hashes, documents: Ints) -> tuple[Ints, Ints]:
    """Documents that share their key with another, bucket by bucket, in order; and their bucket numbers."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    new = np.ones(len(keys) + 1, dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:-1])
    shared = ~(new[:-1] & new[1:])
    return documents[order[shared]], np.cumsum(new[:-1])[shared]


def _portions(sizes: Ints) -> Iterator[slice]:
    """Slices of consecutive elements with about `_AT_ONCE` in sum, at least one element each."""
    if not len(sizes):
        return
    part = (np.cumsum(sizes) - sizes) // _AT_ONCE
    cuts = np.flatnonzero(np.diff(part)) + 1
    for begin, end in zip([0, *cuts], [*cuts, len(sizes)], strict=True):
        yield slice(int(begin), int(end))


def components(documents: int, left: Ints, right: Ints) -> Ints:
    """[documents]: earliest document of each one's connected component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(left), np.int8), (left, right)), shape=(documents, documents))
    label = connected_components(graph, directed=False)[1]
    earliest: Ints = np.unique(label, return_index=True)[1][label]
    return earliest
