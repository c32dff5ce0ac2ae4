"""Repeated lines and paragraphs across the corpus: the first occurrence is kept.

in:  hashes of every shard's spans; documents that are dropped anyway
out: per shard the spans that occur earlier; results with the remaining texts

A span is a line (CCNet, Wenzek et al. 2020), a run of several lines (three in C4, Raffel et al. 2020) or a paragraph.
Spans are equal if their bytes are, from the first word to the last. Source code has no spans: its lines repeat.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.text.batch import DocumentBatch
from groundup.text.curate.dedup import Dedup
from groundup.text.curate.types import FilterResult
from groundup.text.segment import Hashes, Ints, Spans

Mask = NDArray[np.bool_]

PARAGRAPH = 0
"""Lines per span that stands for a paragraph: up to an empty line."""
_AT_ONCE = 1 << 24
"""Hashes sorted at a time, about: 128 MiB, and as much again for their order."""


def kinds(lines: int, paragraphs: bool) -> dict[str, int]:
    """Enabled types of spans, and the number of lines in one."""
    lines_per_span = {"lines": lines} if lines else {}
    return lines_per_span | ({"paragraphs": PARAGRAPH} if paragraphs else {})


def spans(batch: DocumentBatch, run: int) -> tuple[Spans, Spans]:
    """Runs of `run` lines (or paragraphs): from first word to last, and as whole lines with their line ends."""
    lines, words = batch.lines, batch.words
    first, last = np.searchsorted(words.start, lines.start), np.searchsorted(words.start, lines.end)
    is_text = (last > first) & ~batch.is_code[lines.document]
    if run == PARAGRAPH:
        begin, end = _paragraphs(batch, lines, is_text)
    else:
        with_words = np.flatnonzero(is_text)
        begin, end = with_words[: max(len(with_words) - run + 1, 0)], with_words[run - 1 :]
        within = lines.document[begin] == lines.document[end]
        begin, end = begin[within], end[within]
    documents = np.searchsorted(lines.document[begin], np.arange(batch.rows + 1))
    trimmed = Spans(batch.data, words.start[first[begin]], words.end[last[end] - 1], documents)
    after = np.minimum(lines.end[end] + 1, batch.offsets[lines.document[end] + 1])
    whole = Spans(batch.data, lines.start[begin], after, documents)
    return trimmed, whole


def _paragraphs(batch: DocumentBatch, lines: Spans, is_text: Mask) -> tuple[Ints, Ints]:
    """First and last line of each paragraph."""
    at = np.flatnonzero(is_text)
    if not len(at):
        return at, at
    ends = np.cumsum(batch.data == ord("\n"))
    apart = np.ones(len(at) + 1, dtype=bool)
    apart[1:-1] = ends[lines.start[at[1:]]] - ends[lines.end[at[:-1]] - 1] > 1
    apart[1:-1] |= lines.document[at[1:]] != lines.document[at[:-1]]
    return at[apart[:-1]], at[apart[1:]]


def earlier(hashes: Hashes) -> Mask:
    """Whether each element equals an earlier one."""
    order = np.argsort(hashes, kind="stable")
    same = hashes[order[1:]] == hashes[order[:-1]]
    repeated = np.zeros(len(hashes), dtype=bool)
    repeated[order[1:][same]] = True
    return repeated


def mark_repeats(folders: Sequence[Path], recipe: Dedup, dropped: Sequence[Mask]) -> None:
    """Write `<kind>.repeated.npy` [spans] into every shard's folder.

    `dropped`: per shard, documents to ignore, so that the first occurrence is a kept one. Hashes are processed by
    leading bits, so that memory holds a byte per span and about `_AT_ONCE` hashes.
    """
    for kind in kinds(recipe.lines, recipe.paragraphs):
        excluded = [
            np.repeat(is_dropped, np.load(folder / f"{kind}.counts.npy"))
            for folder, is_dropped in zip(folders, dropped, strict=True)
        ]
        bounds = np.concatenate([[0], np.cumsum([len(is_dropped) for is_dropped in excluded])])
        repeated = np.zeros(bounds[-1], dtype=bool)
        for hashes, at in _by_leading_bits([folder / f"{kind}.npy" for folder in folders], excluded, bounds):
            repeated[at[earlier(hashes)]] = True
        for folder, begin, end in zip(folders, bounds[:-1], bounds[1:], strict=True):
            np.save(folder / f"{kind}.repeated.npy", repeated[begin:end])


def _by_leading_bits(files: list[Path], excluded: list[Mask], bounds: Ints) -> Iterator[tuple[Hashes, Ints]]:
    """(hashes, their numbers in the corpus): every hash is in one of the parts, in corpus order."""
    bits = max(int(bounds[-1]) // _AT_ONCE, 0).bit_length()
    for part in range(1 << bits):
        hashes, numbers = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for file, is_excluded, begin in zip(files, excluded, bounds[:-1], strict=True):
            shard: Any = np.load(file)
            selected = ~is_excluded if bits == 0 else ~is_excluded & (shard >> np.uint64(64 - bits) == part)
            at = np.flatnonzero(selected)
            hashes.append(shard[at])
            numbers.append(at + begin)
        yield np.concatenate(hashes), np.concatenate(numbers)


def cut_repeats(batch: DocumentBatch, rows: Ints, folder: Path, recipe: Dedup) -> FilterResult:
    """Texts without their repeated spans; `rows` [batch.rows] are the documents' rows in the shard of `folder`.

    The result is that of `Cut`.
    """
    cut = Cut(batch)
    for kind, run in kinds(recipe.lines, recipe.paragraphs).items():
        repeated, counts = np.load(folder / f"{kind}.repeated.npy"), np.load(folder / f"{kind}.counts.npy")
        _, whole = spans(batch, run)
        begin = (np.cumsum(counts) - counts)[rows]
        number = np.repeat(begin - whole.first[:-1], whole.counts) + np.arange(len(whole.start))
        cut.add(kind, whole, repeated[number])
    return cut.results()


class Cut:
    """Spans to remove from the texts of a batch; they may overlap."""

    def __init__(self, batch: DocumentBatch) -> None:
        self._batch = batch
        self._gone = np.zeros(len(batch.data), dtype=bool)
        self._reason: list[str | None] = [None] * batch.rows

    def add(self, kind: str, whole: Spans, chosen: Mask) -> None:
        """Mark the chosen ones of `whole` for removal."""
        depth = np.zeros(len(self._gone) + 1, np.int32)
        np.add.at(depth, whole.start[chosen], 1)
        np.add.at(depth, whole.end[chosen], -1)
        self._gone |= np.cumsum(depth[:-1]) > 0
        for row in np.unique(whole.document[chosen]):
            self._reason[row] = self._reason[row] or f"repeated_{kind}"

    def results(self) -> FilterResult:
        """`repeated_lines` or `repeated_paragraphs` and the share of bytes removed; dropped if no word is left."""
        batch, cut = self._batch, self._gone
        value: list[float | None] = [None] * batch.rows
        text: list[str | None] = [None] * batch.rows
        for row in (row for row, reason in enumerate(self._reason) if reason):
            at = slice(batch.offsets[row], batch.offsets[row + 1])
            left = batch.data[at][~cut[at]].tobytes().decode()
            value[row] = float(cut[at].mean())
            text[row] = left if left.strip() else None
        return FilterResult(self._reason, value, [None] * batch.rows, text=text)
