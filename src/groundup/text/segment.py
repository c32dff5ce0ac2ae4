"""Words, lines and their hashes for a whole batch of texts, as arrays.

in:  concatenated UTF-8 bytes of many texts, and the start of each text
out: Spans (byte ranges) with a 64-bit hash each, n-gram hashes; lines and paragraphs as groups of words

No Python loop over words. Scripts without spaces have one word per character: see `text/unicode_classes.py`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.text.unicode_classes import ALONE, JOINED, before, code_points, tables, word_classes
from groundup.text.unicode_classes import Bytes as Bytes
from groundup.text.unicode_classes import Ints as Ints
from groundup.text.unicode_classes import Mask as Mask

Hashes = NDArray[np.uint64]

_BLOCK = 1 << 15
"""Spans hashed at a time, so that their arrays fit the cache."""
_LONG = 1024
"""Bytes above which a span is hashed separately: the array loop consumes eight bytes of every span per round."""
_MIX = tuple(np.uint64(k) for k in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53, 0x9E3779B97F4A7C15))
_33 = np.uint64(33)
_FIRST_BYTES = np.array([(1 << 8 * size) - 1 for size in range(9)], dtype=np.uint64)
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)


@dataclass(frozen=True)
class Spans:
    """Byte ranges in a batch; those of document d are `first[d]` to `first[d + 1]`."""

    data: Bytes
    start: Ints
    end: Ints
    first: Ints

    @cached_property
    def counts(self) -> Ints:
        """[documents]: spans per document."""
        return np.diff(self.first)

    @cached_property
    def document(self) -> Ints:
        """[spans]: document of each span."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @cached_property
    def sizes(self) -> Ints:
        """[spans]: bytes per span."""
        return self.end - self.start

    @cached_property
    def chars(self) -> Ints:
        """[spans]: characters per span."""
        return self.sizes - (self._continued[self.end] - self._continued[self.start])

    @cached_property
    def _continued(self) -> NDArray[np.int32]:
        """[bytes + 1]: continuation bytes before each position."""
        return _sums(self.data & 0xC0 == 0x80)

    @cached_property
    def line_ends(self) -> Ints:
        """[spans]: line feeds between each span and the one before."""
        after = np.searchsorted(self.start, np.flatnonzero(self.data == ord("\n")))
        return np.bincount(after, minlength=len(self.start) + 1)[:-1]

    @cached_property
    def hashes(self) -> Hashes:
        """[spans]: 64-bit hash of the bytes; identical in every run and on every machine."""
        return hash_ranges(self.data, self.start, self.end)

    @cached_property
    def keys(self) -> Hashes:
        """[spans]: hashes that are equal only for equal spans of one document."""
        return self.hashes + self.document.astype(np.uint64) * _MIX[0]

    @cached_property
    def repeated(self) -> Mask:
        """[spans]: whether an equal span comes earlier in the document."""
        order, first = groups(self.keys)
        repeated = np.ones(len(order), dtype=bool)
        repeated[order[first]] = False
        return repeated

    def marked(self, mask: Mask) -> Ints:
        """[spans]: True bytes per span; `mask` [bytes of all texts]."""
        before = _sums(mask)
        return (before[self.end] - before[self.start]).astype(np.int64)

    def begins(self, mark: str) -> Mask:
        """[spans]: whether each begins with `mark`."""
        return self._has_bytes(self.start, mark)

    def ends(self, mark: str) -> Mask:
        """[spans]: whether each ends with `mark`."""
        return self._has_bytes(self.end - len(mark.encode()), mark)

    def _has_bytes(self, at: Ints, mark: str) -> Mask:
        equal = self.sizes >= len(mark.encode())
        for offset, byte in enumerate(mark.encode()):
            fits = np.flatnonzero(equal)
            equal[fits] = self.data[at[fits] + offset] == byte
        return equal

    @cached_property
    def sentence_end(self) -> NDArray[np.int32]:
        """[spans]: the sentence-ending character of each, also before a closing quote or bracket; else 0."""
        at = before(self.data, self.end)
        last = code_points(self.data, at)
        closed = np.flatnonzero(tables()["closers"][last].astype(bool) & (at > self.start))
        last[closed] = code_points(self.data, before(self.data, at[closed]))
        last[tables()["ends"][last] == 0] = 0
        return last

    def begins_in(self, table: str) -> Bytes:
        """[spans]: value in `unicode_classes.tables()[table]` of each first character; 0 for ASCII."""
        classes = np.zeros(len(self.start), np.uint8)
        beyond = np.flatnonzero(self.data[self.start] >= 0x80)
        classes[beyond] = tables()[table][code_points(self.data, self.start[beyond])]
        return classes

    def ends_in(self, table: str) -> Mask:
        """[spans]: whether the last character is in `unicode_classes.tables()[table]`."""
        last = code_points(self.data, before(self.data, self.end))
        return tables()[table][last].astype(bool)

    def at(self, positions: Ints) -> Ints:
        """Index of the span that contains each position, -1 if none does."""
        piece = np.searchsorted(self.start, positions, side="right") - 1
        inside = (piece >= 0) & (positions < np.append(self.end, 0)[piece])
        return np.where(inside, piece, -1)

    def per_document(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """[documents]: sum of `values` [spans] per document."""
        sums = np.zeros(len(self.counts))
        some = np.flatnonzero(self.counts)
        if len(some):
            sums[some] = np.add.reduceat(values, self.first[some], dtype=np.float64)
        return sums


@dataclass(frozen=True)
class SpanGroups(Spans):
    """Groups of consecutive words: group g is words `word[g]` to `word[g + 1]`.

    Every word is in one group. Groups have equal `hashes` if their words are equal, whatever the white space between.
    """

    words: Spans
    word: Ints

    @cached_property
    def _continued(self) -> NDArray[np.int32]:
        return self.words._continued

    @cached_property
    def word_counts(self) -> Ints:
        """[groups]: words per group."""
        return np.diff(self.word)

    @cached_property
    def hashes(self) -> Hashes:
        """[groups]: polynomial of the word hashes modulo 2**64; base and powers are invertible."""
        total = len(self.words.start)
        sums = np.zeros(total + 1, np.uint64)
        np.cumsum(self.words.hashes * _powers(_BASE, total), out=sums[1:])
        first, last = self.word[:-1], self.word[1:]
        return mix((sums[last] - sums[first]) * _powers(_INVERSE, total)[first])


def words(data: Bytes, offsets: Ints) -> Spans:
    """Words separated by white space. `offsets` [documents + 1]: start of each text in `data`."""
    return _pieces(data, offsets, word_classes(data, plain=False))


def plain_words(data: Bytes, offsets: Ints) -> Spans:
    """Runs of letters, digits and underscores without punctuation. Pass lower-cased text for comparison."""
    return _pieces(data, offsets, word_classes(data, plain=True))


def lines(data: Bytes, offsets: Ints) -> Spans:
    """Non-empty lines."""
    return stretches(data, offsets, data != 10)


def stretches(data: Bytes, offsets: Ints, mask: Mask) -> Spans:
    """Longest runs of True bytes within one text; `mask` [bytes]."""
    return _pieces(data, offsets, mask.astype(np.uint8))


def trimmed_lines(words: Spans) -> SpanGroups:
    """Lines with at least one word, without surrounding white space."""
    return _runs(words, 1)


def paragraphs(words: Spans) -> SpanGroups:
    """Paragraphs separated by blank lines, without surrounding white space."""
    return _runs(words, 2)


def _runs(words: Spans, line_ends: int) -> SpanGroups:
    """A word begins a group if it is its document's first, or follows at least `line_ends` line feeds."""
    begins = words.line_ends >= line_ends
    begins[words.first[:-1][words.counts > 0]] = True
    word = np.append(np.flatnonzero(begins), len(begins))
    first = np.searchsorted(word[:-1], words.first)
    return SpanGroups(words.data, words.start[word[:-1]], words.end[word[1:] - 1], first, words, word)


def hash_ranges(data: Bytes, start: Ints, end: Ints) -> Hashes:
    """[ranges]: 64-bit hash of each range's bytes and length."""
    padded = np.concatenate([data, np.zeros(8, np.uint8)])
    eight: Hashes = np.ndarray((len(data) + 1,), dtype="<u8", buffer=padded.data, strides=(1,))
    hashes_of_ranges = np.zeros(len(start), np.uint64)
    for block in range(0, len(start), _BLOCK):
        at = start[block : block + _BLOCK]
        rest = end[block : block + _BLOCK] - at
        hashes = hashes_of_ranges[block : block + _BLOCK]
        hashes[:] = mix(rest.astype(np.uint64) * _MIX[2] ^ eight[at] & _FIRST_BYTES[np.minimum(rest, 8)])
        left = np.flatnonzero((rest > 8) & (rest <= _LONG))
        at, rest = at[left] + 8, rest[left] - 8
        while len(left):
            chunk = eight[at] & _FIRST_BYTES[np.minimum(rest, 8)]
            hashes[left] = mix(hashes[left] ^ chunk)
            more = rest > 8
            left, at, rest = left[more], at[more] + 8, rest[more] - 8
    for piece in np.flatnonzero(end - start > _LONG):
        digest = hashlib.blake2b(data[start[piece] : end[piece]].tobytes(), digest_size=8).digest()
        hashes_of_ranges[piece] = np.frombuffer(digest, "<u8")[0]
    return hashes_of_ranges


def hashes_of(words: Sequence[str]) -> Hashes:
    """[words]: hashes equal to `Spans.hashes`."""
    ends = np.cumsum([0, *(len(word.encode()) for word in words)])
    return hash_ranges(np.frombuffer("".join(words).encode(), np.uint8), ends[:-1], ends[1:])


def mix(value: Hashes) -> Hashes:
    """MurmurHash3 finalizer: every input bit affects every output bit."""
    value = (value ^ (value >> _33)) * _MIX[0]
    value = (value ^ (value >> _33)) * _MIX[1]
    return value ^ (value >> _33)


def ngrams(pieces: Spans, n: int) -> tuple[Hashes, Ints]:
    """Hashes of all n-grams within one document, and the index of each one's first span."""
    total = len(pieces.start)
    if total < n:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    key = np.zeros(total - n + 1, np.uint64)
    for shift in range(n):
        key = longer(key, pieces.hashes[shift : total - n + 1 + shift])
    within = np.flatnonzero(pieces.document[: total - n + 1] == pieces.document[n - 1 :])
    return mix(key[within]), within


def longer(key: Hashes, next_hash: Hashes) -> Hashes:
    """Key of an n-gram extended by one span: a polynomial of the span hashes modulo 2**64."""
    return key * _MIX[2] + next_hash


def groups(keys: Hashes) -> tuple[Ints, Ints]:
    """An order that puts equal keys together, earliest first, and the start of each group in it.

    Sorts values instead of indices, several times faster: the low bits of a key are replaced by its index. Keys that
    differ only in these bits are separated afterwards.
    """
    if not len(keys):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    bits = np.uint64(max(len(keys) - 1, 1).bit_length())
    index = np.arange(len(keys), dtype=np.uint64)
    order = (np.sort(keys >> bits << bits | index) & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    brought = keys[order]
    return order, np.append(0, np.flatnonzero(brought[1:] != brought[:-1]) + 1)


def _sums(mask: Mask) -> NDArray[np.int32]:
    """[bytes + 1]: True bytes before each position."""
    sums = np.zeros(len(mask) + 1, np.int32)
    np.cumsum(mask, out=sums[1:])
    return sums


def _powers(base: int, total: int) -> Hashes:
    """base ** 0, ..., base ** (total - 1), modulo 2**64."""
    powers = np.full(total, base, np.uint64)
    powers[:1] = 1
    return np.cumprod(powers)


def _pieces(data: Bytes, offsets: Ints, kind: Bytes) -> Spans:
    """Boundary b is before byte b. Spans begin and end at class changes, at single-character words and at text
    ends.
    """
    inside = np.zeros(len(data) + 2, dtype=bool)
    np.greater(kind, 0, out=inside[1:-1])
    cut = np.zeros(len(data) + 1, dtype=bool)
    cut[offsets] = True
    alone = np.flatnonzero(kind == ALONE)
    cut[alone] = True
    after = alone + np.where(data[alone] >= 0xF0, 4, 3)
    last = after >= len(kind)
    cut[after[last | (kind[np.where(last, 0, after)] != JOINED)]] = True
    cut &= inside[1:] & inside[:-1]
    bounds = np.flatnonzero(inside[1:] != inside[:-1])
    cuts = np.flatnonzero(cut)
    if len(cuts):  # a cut ends one piece and begins another
        bounds = np.sort(np.concatenate([bounds, cuts, cuts]), kind="stable")
    start, end = bounds[::2].copy(), bounds[1::2].copy()
    return Spans(data, start, end, np.searchsorted(start, offsets))
