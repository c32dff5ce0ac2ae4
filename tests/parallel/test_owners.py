"""Matrices that ranks share go to one of them, whole, and come back; small ones told to all."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from groundup.parallel.owners import Owners
from groundup.parallel.ranks import launch
from groundup.parallel.shard import local, share_of

MATRICES, ROWS, COLUMNS = 5, 7, 6
"""Nothing divides by the ranks."""


def exchanged(shape: tuple[int, ...], split: tuple[int | None, ...]) -> list[int]:
    """Send a stack around; returns the matrices that each rank got as its own."""
    mesh = init_device_mesh("cpu", shape)
    places = [Replicate() if dim is None else Shard(dim) for dim in split]
    stack = torch.arange(MATRICES * ROWS * COLUMNS, dtype=torch.float32).view(MATRICES, ROWS, COLUMNS)
    like = distribute_tensor(stack[0].clone(), mesh, places)
    owners = Owners.of(like)
    assert owners is not None
    mine = share_of(stack, like)
    assert mine.shape[1:] == local(like).shape
    own = owners.to_owners(mine)
    assert torch.equal(owners.from_owners(own, MATRICES), mine)
    numbers = [int(first) // (ROWS * COLUMNS) for first in own[:, 0, 0] if own.any()]
    for number, matrix in zip(numbers, own, strict=False):
        assert torch.equal(matrix, stack[number]) or not matrix.any()
    sums = owners.told(own.sum(dim=-1, keepdim=True), MATRICES)
    assert torch.equal(sums, stack.sum(dim=-1, keepdim=True))
    rows = owners.my_rows(sums)
    expected = share_of(
        stack[:, :, :1], distribute_tensor(stack[0, :, :1].clone(), mesh, _rows_alone(places))
    )
    assert torch.equal(rows, sums[:, _where(expected, stack)])
    found: list[list[int]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(found, [n for n, matrix in zip(numbers, own, strict=False) if matrix.any()])
    return sorted(number for of_one in found for number in of_one)


def _rows_alone(places: list[Shard | Replicate]) -> list[Shard | Replicate]:
    return [place if isinstance(place, Shard) and place.dim == 0 else Replicate() for place in places]


def _where(part: torch.Tensor, stack: torch.Tensor) -> list[int]:
    """The rows that `part` has of the stack."""
    firsts = stack[0, :, 0].tolist()
    return [firsts.index(first) for first in part[0, :, 0].tolist()]


@pytest.mark.parametrize(
    ("shape", "split"), [((2,), (0,)), ((2,), (1,)), ((2, 2), (0, 1)), ((2, 2), (None, 0)), ((3,), (0,))]
)
def test_every_matrix_has_one_owner_and_comes_back(
    shape: tuple[int, ...], split: tuple[int | None, ...]
) -> None:
    ranks = 1
    for size in shape:
        ranks *= size
    copies = 2 if None in split else 1
    found = launch(exchanged, (shape, split), ranks, 60.0)
    assert found == sorted(list(range(MATRICES)) * copies)


def test_what_is_not_shared_has_no_owners() -> None:
    assert Owners.of(torch.zeros(3, 4)) is None
