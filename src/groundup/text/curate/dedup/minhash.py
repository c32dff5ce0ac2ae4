"""MinHash signatures and LSH band keys.

in:  words of many documents
out: each document's set of n-grams as sorted 32-bit hashes; minima under many permutations; band keys

Broder, On the resemblance and containment of documents (1997). A permutation is a multiplication by an odd number
modulo 2^32: one operation and a minimum per n-gram, which NumPy vectorises. The usual added constant would cost half
as much again without effect, since the n-gram hashes are already uniform.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from groundup.text.segment import Hashes, Ints, Spans, mix, ngrams

Shingles = NDArray[np.uint32]

_BLOCK = 1024
"""N-grams per block: with 112 permutations the products fill half of a core's L2 cache."""
_32, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
_ODD = np.uint64(0x9E3779B97F4A7C15)


def shingles(words: Spans, n: int) -> tuple[Shingles, Ints]:
    """Sets of word n-grams of all documents, sorted: hashes [total], and the start of each set [documents + 1].

    A document of at most n words is represented by the two halves of one 64-bit hash of all its words. A document
    without words has an empty set.
    """
    hashes, at = ngrams(words, n)
    document = words.document[at]
    longer = words.counts[document] > n
    whole, short = _whole(words, n)
    keys = np.concatenate(
        [
            document[longer].astype(np.uint64) << _32 | hashes[longer] >> _32,
            short << _32 | whole >> _32,
            short << _32 | whole & _LOW,
        ]
    )
    keys.sort()
    new = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    keys = keys[new]
    documents = np.arange(len(words.counts) + 1, dtype=np.uint64)
    return keys.astype(np.uint32), np.searchsorted(keys, documents << _32)


def _whole(words: Spans, n: int) -> tuple[Hashes, Hashes]:
    """Hash of all words for each document of 1 to n words, and those documents' numbers."""
    short = np.flatnonzero((words.counts > 0) & (words.counts <= n))
    hashes = words.counts[short].astype(np.uint64)
    for word in range(n):
        has = words.counts[short] > word
        hashes[has] = hashes[has] * _ODD + words.hashes[words.first[short[has]] + word]
    return mix(hashes), short.astype(np.uint64)


def permutations(count: int, seed: int) -> Shingles:
    """[count]: odd multipliers; a larger count extends a smaller one."""
    number = np.arange(count, dtype=np.uint64) + (np.uint64(seed) << _32)
    return (mix((number + np.uint64(1)) * _ODD) >> _32).astype(np.uint32) | np.uint32(1)


def minhash(sets: Shingles, first: Ints, multipliers: Shingles) -> Shingles:
    """[documents, permutations]: smallest n-gram hash of each set under each permutation.

    Two sets agree at one permutation with the probability of their Jaccard similarity.
    """
    signature = np.full((len(first) - 1, len(multipliers)), np.iinfo(np.uint32).max, np.uint32)
    products_buffer = np.empty(len(multipliers) * _BLOCK, np.uint32)
    column = multipliers[:, None]
    for document, begin, end in _blocks(first):
        products = products_buffer[: len(multipliers) * (end - begin)].reshape(len(multipliers), end - begin)
        np.multiply(column, sets[begin:end], out=products)
        np.minimum(signature[document], products.min(axis=1), out=signature[document])
    return signature


def _blocks(first: Ints) -> Iterator[tuple[int, int, int]]:
    """(document, begin, end) of every set in blocks that fit the cache."""
    for document, (begin, end) in enumerate(zip(first[:-1].tolist(), first[1:].tolist(), strict=True)):
        for at in range(begin, end, _BLOCK):
            yield document, at, min(at + _BLOCK, end)


def band_keys(minimum: Shingles, bands: int, rows: int) -> Hashes:
    """[bands, documents]: one hash of the `rows` minima in each band."""
    table = minimum.reshape(len(minimum), bands, rows)
    key = np.zeros((len(minimum), bands), np.uint64)
    for row in range(rows):
        key = mix(key + table[:, :, row].astype(np.uint64) + _ODD)
    return np.ascontiguousarray(key.T)
