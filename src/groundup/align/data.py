"""Sequences of different length -> micro-batches of one fixed shape.

in:  groups of sequences; a group (a conversation, a preference pair) stays in one micro-batch
out: rows of ids with the sequence each position belongs to, and where every sequence starts

Every method packs in this way, so all of them train on the shape [rows, time], with little padding. Attention
stays within a sequence, so a sequence's results don't depend on what it's packed with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from groundup.core.rng import derive_seed


@dataclass(frozen=True)
class PackedSpan:
    """Where a sequence lies: `group` and `member` name it, `start` is its first position in the flat rows."""

    group: int
    member: int
    start: int


@dataclass(frozen=True)
class PackedBatch:
    """A micro-batch. Flat position p is row p // time, column p % time."""

    ids: Int[Tensor, "rows time"]
    segments: Int[Tensor, "rows time"]
    places: tuple[PackedSpan, ...]

    def to(self, device: torch.device) -> "PackedBatch":
        """The same on `device`."""
        return PackedBatch(self.ids.to(device), self.segments.to(device), self.places)


def fill(groups: Sequence[Sequence[int]], rows: int, time: int) -> list[list[PackedSpan]]:
    """Lay out groups of sequence lengths, in their order, into as many micro-batches as they need.

    A sequence goes into the row it fills best. When a group doesn't fit whole, the micro-batch is closed: only
    that much is padded. Every sequence must fit into a row, and every group into an empty micro-batch.
    """
    batches: list[list[PackedSpan]] = []
    room: list[int] = []
    for number, lengths in enumerate(groups):
        rows_of = _rows_for(lengths, room)
        if rows_of is None:
            batches.append([])
            room = [time] * rows
            rows_of = _rows_for(lengths, room)
            assert rows_of is not None, f"a group of lengths {list(lengths)} doesn't fit into {rows} x {time}"
        for member, (row, length) in enumerate(zip(rows_of, lengths, strict=True)):
            batches[-1].append(PackedSpan(number, member, row * time + time - room[row]))
            room[row] -= length
    return batches


def pack(
    groups: Sequence[Sequence[Sequence[int]]], places: Sequence[PackedSpan], rows: int, time: int, pad: int
) -> PackedBatch:
    """The micro-batch that `fill` laid out in `places`."""
    ids = torch.full((rows * time,), pad)
    segments = torch.full((rows * time,), -1, dtype=torch.int32)
    for number, place in enumerate(places):
        sequence = torch.tensor(groups[place.group][place.member])
        span = slice(place.start, place.start + len(sequence))
        ids[span], segments[span] = sequence, number
    return PackedBatch(ids.view(rows, time), segments.view(rows, time), tuple(places))


def pack_all(
    groups: Sequence[Sequence[Sequence[int]]], rows: int, time: int, pad: int
) -> Iterator[PackedBatch]:
    """Every group, in order, as micro-batches."""
    lengths = [[len(sequence) for sequence in group] for group in groups]
    for places in fill(lengths, rows, time):
        yield pack(groups, places, rows, time, pad)


def permutation(count: int, *seed: int | str) -> list[int]:
    """The numbers below `count` in an order that depends on `seed` alone."""
    generator = torch.Generator().manual_seed(derive_seed(*seed))
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def chosen_at(step: int, count: int, per_step: int, *seed: int | str) -> list[int]:
    """Which of `count` items step `step` takes: `per_step` of them, each once per epoch, in a new order each time.

    A step may reach over the end of an epoch.
    """
    places = [divmod(position, count) for position in range(step * per_step, (step + 1) * per_step)]
    orders = {epoch: permutation(count, *seed, epoch) for epoch in {epoch for epoch, _ in places}}
    return [orders[epoch][place] for epoch, place in places]


def _rows_for(lengths: Sequence[int], room: Sequence[int]) -> list[int] | None:
    """The row of each sequence of a group, or None when the group doesn't fit."""
    left, found = list(room), []
    for length in lengths:
        fitting = [(space, row) for row, space in enumerate(left) if space >= length]
        if not fitting:
            return None
        row = min(fitting)[1]
        left[row] -= length
        found.append(row)
    return found
