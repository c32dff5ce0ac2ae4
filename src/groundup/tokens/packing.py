"""Packs sequences of any length into rows of one length, with little padding and no token lost.

in:  lengths
out: which part of which sequence is placed where

Best-fit decreasing (as in Ding et al. 2024, arXiv:2404.10830): every piece goes into the fullest row it fits in. Only
a piece that begins its sequence may be placed anywhere, because its first token separates it from the tokens before it.
So a sequence longer than a row is cut such that its first piece is the short one; all its others fill whole rows.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """`length` tokens from `start` of sequence `sequence`, placed at `offset` of row `row`."""

    sequence: int
    start: int
    length: int
    row: int
    offset: int


class OpenRows:
    """The free space of rows of one capacity, for best fit."""

    def __init__(self, capacity: int, rows: int = 0) -> None:
        self.capacity, self.count = capacity, 0
        self._free: list[tuple[int, int]] = []
        for _ in range(rows):
            self.add_row()

    def add_row(self) -> None:
        """Open an empty row, numbered after the others."""
        insort(self._free, (self.capacity, self.count))
        self.count += 1

    def place(self, length: int) -> tuple[int, int] | None:
        """(row, offset) in the fullest row with room for `length` tokens, the first of equal ones; None = no room."""
        index = bisect_left(self._free, (length, -1))
        if index == len(self._free):
            return None
        free, row = self._free.pop(index)
        if free > length:
            insort(self._free, (free - length, row))
        return row, self.capacity - free

    def place_all(self, lengths: Sequence[int]) -> list[tuple[int, int]] | None:
        """(row, offset) of each length; None, and nothing is placed, where they do not all fit."""
        before, placed = list(self._free), []
        for length in lengths:
            position = self.place(length)
            if position is None:
                self._free = before
                return None
            placed.append(position)
        return placed


def pack(lengths: Sequence[int], capacity: int) -> list[Segment]:
    """Place every token of every sequence; rows are numbered from 0 and have `capacity` positions."""
    segments, row = [], 0
    for sequence, length in enumerate(lengths):
        for start in range(_first_length(length, capacity), length, capacity):
            segments.append(Segment(sequence, start, capacity, row, 0))
            row += 1
    first_lengths = [_first_length(length, capacity) for length in lengths]
    for sequence, (index, offset) in enumerate(best_fit(first_lengths, capacity)):
        if first_lengths[sequence]:
            segments.append(Segment(sequence, 0, first_lengths[sequence], row + index, offset))
    return sorted(segments, key=lambda segment: (segment.row, segment.offset))


def best_fit(lengths: Sequence[int], capacity: int) -> list[tuple[int, int]]:
    """(row, offset) of every segment: longest first, each into the row with the least sufficient room."""
    placed = [(0, 0)] * len(lengths)
    rows = OpenRows(capacity)
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        assert length <= capacity, f"a piece of {length} does not fit a row of {capacity}"
        position = rows.place(length)
        if position is None:
            rows.add_row()
            position = rows.place(length)
            assert position is not None
        placed[index] = position
    return placed


def _first_length(length: int, capacity: int) -> int:
    """Length of the piece that begins a sequence: the rest after whole rows are cut from its end."""
    return length % capacity or min(length, capacity)
