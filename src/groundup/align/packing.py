"""Packs sequences of different lengths into micro-batches of one fixed shape.

in:  groups of sequences; a group (a conversation, a preference pair) stays in one micro-batch
out: rows of ids with the sequence of each position, and the position of every sequence

All methods pack in this way, so all of them train on the shape [rows, time], with little padding. Attention stays
within a sequence, so a sequence's results do not depend on the sequences that it is packed with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from groundup.core.rng import derive_seed
from groundup.tokens.loader import step_indices
from groundup.tokens.packing import OpenRows


@dataclass(frozen=True)
class PackedSpan:
    """The position of a sequence: `group` and `member` name it, `start` is its first position in the flat rows."""

    group: int
    member: int
    start: int


@dataclass(frozen=True)
class PackedBatch:
    """A micro-batch. Flat position p is row p // time, column p % time."""

    ids: Int[Tensor, "rows time"]
    segments: Int[Tensor, "rows time"]
    spans: tuple[PackedSpan, ...]

    def to(self, device: torch.device) -> "PackedBatch":
        """The same on `device`."""
        return PackedBatch(self.ids.to(device), self.segments.to(device), self.spans)


def fill(groups: Sequence[Sequence[int]], rows: int, time: int) -> list[list[PackedSpan]]:
    """Lay out groups of sequence lengths, in their order, into as many micro-batches as they need.

    A sequence goes into the row it fills best. When a group doesn't fit whole, the next micro-batch begins. Every
    sequence must fit into a row, and every group into an empty micro-batch.
    """
    batches: list[list[PackedSpan]] = []
    open_rows = OpenRows(time)
    for number, lengths in enumerate(groups):
        placed = open_rows.place_all(lengths)
        if placed is None or not batches:
            batches.append([])
            open_rows = OpenRows(time, rows)
            placed = open_rows.place_all(lengths)
            assert placed is not None, f"a group of lengths {list(lengths)} doesn't fit into {rows} x {time}"
        batches[-1] += [
            PackedSpan(number, member, row * time + offset) for member, (row, offset) in enumerate(placed)
        ]
    return batches


def pack(
    groups: Sequence[Sequence[Sequence[int]]], spans: Sequence[PackedSpan], rows: int, time: int, pad: int
) -> PackedBatch:
    """The micro-batch that `fill` laid out in `spans`."""
    ids = torch.full((rows * time,), pad)
    segments = torch.full((rows * time,), -1, dtype=torch.int32)
    for number, span in enumerate(spans):
        sequence = torch.tensor(groups[span.group][span.member])
        positions = slice(span.start, span.start + len(sequence))
        ids[positions], segments[positions] = sequence, number
    return PackedBatch(ids.view(rows, time), segments.view(rows, time), tuple(spans))


def pack_all(
    groups: Sequence[Sequence[Sequence[int]]], rows: int, time: int, pad: int
) -> Iterator[PackedBatch]:
    """Every group, in order, as micro-batches."""
    lengths = [[len(sequence) for sequence in group] for group in groups]
    for spans in fill(lengths, rows, time):
        yield pack(groups, spans, rows, time, pad)


def permutation(count: int, *seed: int | str) -> list[int]:
    """The numbers below `count` in an order that depends on `seed` alone."""
    generator = torch.Generator().manual_seed(derive_seed(*seed))
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    return order


def epoch_indices(step: int, count: int, per_step: int, *seed: int | str) -> list[int]:
    """The items of `count` that step `step` takes: each once per epoch, in a new order each time."""
    indices: list[int] = step_indices(
        count, per_step, step, lambda epoch: permutation(count, *seed, epoch)
    ).tolist()
    return indices
