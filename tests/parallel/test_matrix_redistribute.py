"""Matrices that ranks share go to one of them, whole, and come back; small ones told to all."""

import math

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from groundup.parallel.launcher import launch
from groundup.parallel.matrix_redistribute import MatrixRedistribution
from groundup.parallel.shard import local, local_shard

MATRICES, ROWS, COLUMNS = 5, 7, 6
"""Nothing divides by the ranks."""


def exchanged(shape: tuple[int, ...], split: tuple[int | None, ...]) -> list[int]:
    """Send a stack around; returns the matrices that each rank got as its own."""
    mesh = init_device_mesh("cpu", shape)
    places = [Replicate() if dim is None else Shard(dim) for dim in split]
    stack = torch.arange(MATRICES * ROWS * COLUMNS, dtype=torch.float32).view(MATRICES, ROWS, COLUMNS)
    like = distribute_tensor(stack[0].clone(), mesh, places)
    owners = MatrixRedistribution.of(like)
    assert owners is not None
    mine = local_shard(stack, like)
    assert mine.shape[1:] == local(like).shape
    own = owners.to_owners(mine)
    assert torch.equal(owners.from_owners(own, MATRICES), mine)
    numbers = [int(first) // (ROWS * COLUMNS) for first in own[:, 0, 0] if own.any()]
    for number, matrix in zip(numbers, own, strict=False):
        assert torch.equal(matrix, stack[number]) or not matrix.any()
    sums = owners.all_gather(own.sum(dim=-1, keepdim=True), MATRICES)
    assert torch.equal(sums, stack.sum(dim=-1, keepdim=True))
    of_rows = [place if place == Shard(0) else Replicate() for place in places]
    expected = local_shard(sums, distribute_tensor(stack[0, :, :1].clone(), mesh, of_rows))
    assert torch.equal(owners.local_rows(sums), expected)
    found: list[list[int]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(found, [n for n, matrix in zip(numbers, own, strict=False) if matrix.any()])
    return sorted(number for of_one in found for number in of_one)


@pytest.mark.parametrize(
    ("shape", "split"), [((2,), (0,)), ((2,), (1,)), ((2, 2), (0, 1)), ((2, 2), (None, 0)), ((3,), (0,))]
)
def test_every_matrix_has_one_owner_and_comes_back(
    shape: tuple[int, ...], split: tuple[int | None, ...]
) -> None:
    copies = 2 if None in split else 1
    found = launch(exchanged, (shape, split), math.prod(shape), 60.0)
    assert found == sorted(list(range(MATRICES)) * copies)


def test_what_is_not_shared_has_no_owners() -> None:
    assert MatrixRedistribution.of(torch.zeros(3, 4)) is None
