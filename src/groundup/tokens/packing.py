"""Sequences of any length -> rows of one length, with little padding and no token lost.

in:  lengths
out: which piece of which sequence stands where

Best-fit decreasing (as in Ding et al. 2024, arXiv:2404.10830): every piece goes into the fullest row it fits in. Only
a piece that begins its sequence may stand anywhere, for its first token marks the border to what stands before it. So
a sequence longer than a row is cut such that its first piece is the short one; all its others fill whole rows.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Segment:
    """`length` tokens from `start` of sequence number `sequence`, placed at `offset` of row number `row`."""

    sequence: int
    start: int
    length: int
    row: int
    offset: int


def pack(lengths: Sequence[int], capacity: int) -> list[Segment]:
    """Place every token of every sequence; rows are numbered from 0 and have `capacity` places."""
    pieces, row = [], 0
    for sequence, length in enumerate(lengths):
        for start in range(_first(length, capacity), length, capacity):
            pieces.append(Segment(sequence, start, capacity, row, 0))
            row += 1
    starts = [_first(length, capacity) for length in lengths]
    for sequence, (at, offset) in enumerate(best_fit(starts, capacity)):
        if starts[sequence]:
            pieces.append(Segment(sequence, 0, starts[sequence], row + at, offset))
    return sorted(pieces, key=lambda piece: (piece.row, piece.offset))


def best_fit(lengths: Sequence[int], capacity: int) -> list[tuple[int, int]]:
    """(row, offset) of every piece: longest first, each into the row with the least room that still holds it."""
    placed = [(0, 0)] * len(lengths)
    room: list[tuple[int, int]] = []
    rows = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        assert length <= capacity, f"a piece of {length} does not fit a row of {capacity}"
        at = bisect_left(room, (length, -1))
        space, row = room.pop(at) if at < len(room) else (capacity, rows)
        rows += row == rows
        placed[index] = (row, capacity - space)
        if space > length:
            insort(room, (space - length, row))
    return placed


def _first(length: int, capacity: int) -> int:
    """Length of the piece that begins a sequence: what is left when whole rows are cut from its end."""
    return length % capacity or min(length, capacity)
