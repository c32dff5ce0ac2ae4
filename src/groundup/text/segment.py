"""Words, lines and their hashes for a whole batch of texts at once, as arrays: what rules and duplicates stand on.

in:  the UTF-8 bytes of many texts, end to end, and where each text begins
out: Pieces (byte ranges), a 64-bit hash for each, hashes of n-grams; lines and paragraphs as runs of words

Nothing here loops over words in Python. Scripts without spaces between words have one word per character: see
`text/unicode_classes.py`.
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
"""Pieces that are hashed at a time: their arrays stay in the cache."""
_LONG = 1024
"""Bytes from which a piece is hashed alone: the array loop takes eight bytes of every piece in a round."""
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
        """[documents]: pieces per document."""
        return np.diff(self.first)

    @cached_property
    def document(self) -> Ints:
        """[pieces]: the document that each stands in."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @cached_property
    def sizes(self) -> Ints:
        """[pieces]: bytes of each."""
        return self.end - self.start

    @cached_property
    def chars(self) -> Ints:
        """[pieces]: characters of each."""
        return self.sizes - (self._continued[self.end] - self._continued[self.start])

    @cached_property
    def _continued(self) -> NDArray[np.int32]:
        """[bytes + 1]: how many bytes before each aren't the first of their character."""
        return _sums(self.data & 0xC0 == 0x80)

    @cached_property
    def line_ends(self) -> Ints:
        """[pieces]: line ends between each and the piece before."""
        after = np.searchsorted(self.start, np.flatnonzero(self.data == ord("\n")))
        return np.bincount(after, minlength=len(self.start) + 1)[:-1]

    @cached_property
    def hashes(self) -> Hashes:
        """[pieces]: 64 bits of each one's bytes; equal bytes, equal hash, in every run and on every machine."""
        return hash_ranges(self.data, self.start, self.end)

    @cached_property
    def keys(self) -> Hashes:
        """[pieces]: hashes that are equal for equal pieces of one document only."""
        return self.hashes + self.document.astype(np.uint64) * _MIX[0]

    @cached_property
    def repeated(self) -> Mask:
        """[pieces]: whether the same stood earlier in the document."""
        order, first = groups(self.keys)
        repeated = np.ones(len(order), dtype=bool)
        repeated[order[first]] = False
        return repeated

    def marked(self, mask: Mask) -> Ints:
        """[pieces]: how many bytes of each are marked; `marks` [bytes of all texts]."""
        before = _sums(mask)
        return (before[self.end] - before[self.start]).astype(np.int64)

    def begins(self, mark: str) -> Mask:
        """[pieces]: whether each begins with `mark`."""
        return self._says(self.start, mark)

    def ends(self, mark: str) -> Mask:
        """[pieces]: whether each ends with `mark`."""
        return self._says(self.end - len(mark.encode()), mark)

    def _says(self, at: Ints, mark: str) -> Mask:
        equal = self.sizes >= len(mark.encode())
        for offset, byte in enumerate(mark.encode()):
            fits = np.flatnonzero(equal)
            equal[fits] = self.data[at[fits] + offset] == byte
        return equal

    @cached_property
    def sentence_end(self) -> NDArray[np.int32]:
        """[pieces]: the character that each ends a sentence with, perhaps before a closing quote or bracket; or 0."""
        at = before(self.data, self.end)
        last = code_points(self.data, at)
        closed = np.flatnonzero(tables()["closers"][last].astype(bool) & (at > self.start))
        last[closed] = code_points(self.data, before(self.data, at[closed]))
        last[tables()["ends"][last] == 0] = 0
        return last

    def begins_in(self, table: str) -> Bytes:
        """[pieces]: what one of `characters.tables()` says of the character that each begins with; 0 for ASCII."""
        classes = np.zeros(len(self.start), np.uint8)
        beyond = np.flatnonzero(self.data[self.start] >= 0x80)
        classes[beyond] = tables()[table][code_points(self.data, self.start[beyond])]
        return classes

    def ends_in(self, table: str) -> Mask:
        """[pieces]: whether each ends with a character of one of `characters.tables()`."""
        last = code_points(self.data, before(self.data, self.end))
        return tables()[table][last].astype(bool)

    def at(self, positions: Ints) -> Ints:
        """The pieces that stand at these bytes; -1 for a byte that is in none."""
        piece = np.searchsorted(self.start, positions, side="right") - 1
        inside = (piece >= 0) & (positions < np.append(self.end, 0)[piece])
        return np.where(inside, piece, -1)

    def per_document(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """[documents]: the sum of `values` [pieces] over each document's pieces."""
        sums = np.zeros(len(self.counts))
        some = np.flatnonzero(self.counts)
        if len(some):
            sums[some] = np.add.reduceat(values, self.first[some], dtype=np.float64)
        return sums


@dataclass(frozen=True)
class SpanGroups(Spans):
    """Pieces that are runs of words, from first word to last: run r is words `word[r]` to `word[r + 1]`.

    Every word is in one run. Two runs are the same (`hashes`) if their words are, whatever white space is between.
    """

    words: Spans
    word: Ints

    @cached_property
    def _continued(self) -> NDArray[np.int32]:
        return self.words._continued

    @cached_property
    def word_counts(self) -> Ints:
        """[runs]: words in each."""
        return np.diff(self.word)

    @cached_property
    def hashes(self) -> Hashes:
        """[runs]: a polynomial of the words' hashes, modulo 2**64; base and all its powers have inverses."""
        total = len(self.words.start)
        sums = np.zeros(total + 1, np.uint64)
        np.cumsum(self.words.hashes * _powers(_BASE, total), out=sums[1:])
        first, last = self.word[:-1], self.word[1:]
        return mix((sums[last] - sums[first]) * _powers(_INVERSE, total)[first])


def words(data: Bytes, offsets: Ints) -> Spans:
    """What stands between white space. `offsets` [documents + 1] says where each text begins in `data`."""
    return _pieces(data, offsets, word_classes(data, plain=False))


def plain_words(data: Bytes, offsets: Ints) -> Spans:
    """Runs of letters, digits and underscores, punctuation gone. Give it lower-cased text to compare by."""
    return _pieces(data, offsets, word_classes(data, plain=True))


def lines(data: Bytes, offsets: Ints) -> Spans:
    """What stands between line ends; empty lines are no pieces."""
    return stretches(data, offsets, data != 10)


def stretches(data: Bytes, offsets: Ints, mask: Mask) -> Spans:
    """The longest runs of marked bytes within one text; `marks` [bytes]."""
    return _pieces(data, offsets, mask.astype(np.uint8))


def trimmed_lines(words: Spans) -> SpanGroups:
    """Lines with words in them, without the white space around."""
    return _runs(words, 1)


def paragraphs(words: Spans) -> SpanGroups:
    """What stands between blank lines, without the white space around."""
    return _runs(words, 2)


def _runs(words: Spans, line_ends: int) -> SpanGroups:
    """A word begins a run if it is its document's first, or so many line ends stand right before it."""
    begins = words.line_ends >= line_ends
    begins[words.first[:-1][words.counts > 0]] = True
    word = np.append(np.flatnonzero(begins), len(begins))
    first = np.searchsorted(word[:-1], words.first)
    return SpanGroups(words.data, words.start[word[:-1]], words.end[word[1:] - 1], first, words, word)


def hash_ranges(data: Bytes, start: Ints, end: Ints) -> Hashes:
    """[ranges]: a 64-bit hash of each range's bytes and length."""
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
    """[words]: hashes as `Pieces.hashes` has them."""
    ends = np.cumsum([0, *(len(word.encode()) for word in words)])
    return hash_ranges(np.frombuffer("".join(words).encode(), np.uint8), ends[:-1], ends[1:])


def mix(value: Hashes) -> Hashes:
    """The finalizer of MurmurHash3: every bit of the input reaches every bit of the output."""
    value = (value ^ (value >> _33)) * _MIX[0]
    value = (value ^ (value >> _33)) * _MIX[1]
    return value ^ (value >> _33)


def ngrams(pieces: Spans, n: int) -> tuple[Hashes, Ints]:
    """Hashes of all runs of n pieces within one document, and the index of each run's first piece."""
    total = len(pieces.start)
    if total < n:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    key = np.zeros(total - n + 1, np.uint64)
    for shift in range(n):
        key = longer(key, pieces.hashes[shift : total - n + 1 + shift])
    within = np.flatnonzero(pieces.document[: total - n + 1] == pieces.document[n - 1 :])
    return mix(key[within]), within


def longer(key: Hashes, next_hash: Hashes) -> Hashes:
    """A run's key, one piece longer: a polynomial of the pieces' hashes, modulo 2**64."""
    return key * _MIX[2] + next_hash


def groups(keys: Hashes) -> tuple[Ints, Ints]:
    """An order that brings equal keys together, the earliest first, and where in it each group begins.

    Sorts numbers, not indices: a key's last bits make room for its index, which is several times faster. Keys that
    differ in these bits alone are told apart afterwards.
    """
    if not len(keys):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    bits = np.uint64(max(len(keys) - 1, 1).bit_length())
    index = np.arange(len(keys), dtype=np.uint64)
    order = (np.sort(keys >> bits << bits | index) & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    brought = keys[order]
    return order, np.append(0, np.flatnonzero(brought[1:] != brought[:-1]) + 1)


def _sums(mask: Mask) -> NDArray[np.int32]:
    """[bytes + 1]: how many bytes before each are marked."""
    sums = np.zeros(len(mask) + 1, np.int32)
    np.cumsum(mask, out=sums[1:])
    return sums


def _powers(base: int, total: int) -> Hashes:
    """base ** 0, ..., base ** (total - 1), modulo 2**64."""
    powers = np.full(total, base, np.uint64)
    powers[:1] = 1
    return np.cumprod(powers)


def _pieces(data: Bytes, offsets: Ints, kind: Bytes) -> Spans:
    """Boundary b stands before byte b. Pieces begin and end where inside meets outside, and where texts meet."""
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
