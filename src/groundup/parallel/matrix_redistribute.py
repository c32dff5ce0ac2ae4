"""Matrix redistribution: from shards on all ranks to whole matrices, each on one rank, and back.

in:  this rank's parts of a stack of matrices, all shared in the same way
out: some of these matrices, whole, on each rank; and the way back

Every rank sends its part of a matrix to the matrix's owner and gets its parts of the results: that is as much as the
rank holds, however many there are. (Ranks of Muon divide matrices in Liu et al. 2025, https://arxiv.org/abs/2502.16982,
too, where all of them are gathered.)
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.distributed.tensor import DTensor

from groundup.parallel.shard import is_sharded


@dataclass(frozen=True)
class _ShardAxis:
    """A mesh axis over which matrices are sharded."""

    group: dist.ProcessGroup
    dim: int
    """-2: their rows, -1: their columns"""
    lengths: tuple[int, ...]
    """of each rank's shard along `dim`"""

    @staticmethod
    def of(group: dist.ProcessGroup, dim: int, length: int) -> "_ShardAxis":
        ranks = group.size()
        each = -(-length // ranks)
        ends = [min(length, each * rank) for rank in range(ranks + 1)]
        return _ShardAxis(group, dim, tuple(end - start for start, end in pairwise(ends)))

    @property
    def local_length(self) -> int:
        """Length of this rank's shard."""
        return self.lengths[dist.get_rank(self.group)]

    def each(self, matrices: int) -> int:
        """Matrices per owner."""
        return -(-matrices // len(self.lengths))

    def to_owners(self, stack: Tensor) -> Tensor:
        """[matrices, ...] shards -> [own, ...] concatenated along `dim`; the last owners may get padding of zeros."""
        ranks, own = len(self.lengths), self.each(len(stack))
        padded = stack.new_zeros((own * ranks, *stack.shape[1:]))
        padded[: len(stack)] = stack
        shapes = [self._shape(own, stack, length) for length in self.lengths]
        received = stack.new_empty(sum(shape.numel() for shape in shapes))
        sizes = [shape.numel() for shape in shapes]
        dist.all_to_all_single(
            received, padded.flatten(), sizes, [padded.numel() // ranks] * ranks, self.group
        )
        parts = [part.view(shape) for part, shape in zip(torch.split(received, sizes), shapes, strict=True)]
        return torch.cat(parts, dim=self.dim)

    def from_owners(self, whole: Tensor, matrices: int) -> Tensor:
        """The inverse of `to_owners`, for `matrices` matrices in all."""
        ranks, own = len(self.lengths), len(whole)
        parts = [part.flatten() for part in torch.split(whole, list(self.lengths), dim=self.dim)]
        shape = self._shape(own * ranks, whole, self.local_length)
        received = whole.new_empty(shape.numel())
        sizes = [part.numel() for part in parts]
        dist.all_to_all_single(
            received, torch.cat(parts), [received.numel() // ranks] * ranks, sizes, self.group
        )
        return received.view(shape)[:matrices]

    def all_gather(self, values: Tensor, matrices: int) -> Tensor:
        """All-gather values of the owners' matrices: [own, ...] -> [matrices, ...]."""
        gathered = [torch.empty_like(values) for _ in self.lengths]
        dist.all_gather(gathered, values.contiguous(), group=self.group)
        return torch.cat(gathered)[:matrices]

    def _shape(self, matrices: int, like: Tensor, length: int) -> torch.Size:
        shape = [matrices, *like.shape[1:]]
        shape[self.dim] = length
        return torch.Size(shape)


@dataclass(frozen=True)
class MatrixRedistribution:
    """Redistribution of a stack of sharded matrices."""

    axes: tuple[_ShardAxis, ...]
    """the sharding axes, in the order in which shards are concatenated"""

    @staticmethod
    def of(parameter: Tensor) -> "MatrixRedistribution | None":
        """For parameters [..., rows, columns] sharded like this one; None where each rank has whole matrices."""
        if not isinstance(parameter, DTensor):
            return None
        mesh, axes = parameter.device_mesh, []
        lengths = {-2: parameter.shape[-2], -1: parameter.shape[-1]}
        # The innermost axis of the mesh has split first.
        for axis in reversed(range(mesh.ndim)):
            place = parameter.placements[axis]
            dim = place.dim - parameter.dim() if is_sharded(place) else 0
            if dim in lengths:
                axes.append(_ShardAxis.of(mesh.get_group(axis), dim, lengths[dim]))
                lengths[dim] = axes[-1].local_length
        return MatrixRedistribution(tuple(reversed(axes))) if axes else None

    def to_owners(
        self, stack: Float[Tensor, "matrices my_rows my_columns"]
    ) -> Float[Tensor, "own rows columns"]:
        """This rank's own matrices, whole; zeros where there are fewer than ranks."""
        for axis in self.axes:
            stack = axis.to_owners(stack)
        return stack

    def from_owners(
        self, whole: Float[Tensor, "own rows columns"], matrices: int
    ) -> Float[Tensor, "matrices my_rows my_columns"]:
        """This rank's shards of all matrices."""
        for axis, count in zip(reversed(self.axes), reversed(self._counts(matrices)), strict=True):
            whole = axis.from_owners(whole, count)
        return whole

    def all_gather(
        self, values: Float[Tensor, "own rows 1"], matrices: int
    ) -> Float[Tensor, "matrices rows 1"]:
        """All-gather values of all matrices from their owners."""
        for axis, count in zip(reversed(self.axes), reversed(self._counts(matrices)), strict=True):
            values = axis.all_gather(values, count)
        return values

    def local_rows(self, values: Float[Tensor, "matrices rows 1"]) -> Float[Tensor, "matrices my_rows 1"]:
        """The values of the rows that this rank has a shard of."""
        for axis in reversed(self.axes):
            if axis.dim == -2:
                values = torch.split(values, list(axis.lengths), dim=-2)[dist.get_rank(axis.group)]
        return values

    def _counts(self, matrices: int) -> list[int]:
        """Number of matrices that enter each axis."""
        counts = []
        for axis in self.axes:
            counts.append(matrices)
            matrices = axis.each(matrices)
        return counts
