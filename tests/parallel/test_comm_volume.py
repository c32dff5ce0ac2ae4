"""Bytes of each kind of collective, against a sum by hand; the other ranks are PyTorch's fake ones."""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from groundup.core.runtime import Layout
from groundup.parallel.comm_volume import CommVolume, comm_groups
from groundup.parallel.context import SINGLE, ParallelContext, current_context

functional = torch.ops._c10d_functional
wait = functional.wait_tensor
MINE = 60 * 4
"""Bytes of what this rank gives: 60 numbers in fp32."""


@pytest.fixture
def four() -> Iterator[ParallelContext]:
    """This process as rank 0 of four."""
    dist.init_process_group("fake", rank=0, world_size=4, store=FakeStore())
    yield current_context(Layout(tensor=2), torch.device("cpu"))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("kind", "call", "sent"),
    [
        ("all_reduce", dist.all_reduce, 2 * MINE * 3 // 4),
        ("broadcast", lambda x: dist.broadcast(x, 0), MINE * 3 // 4),
        ("all_gather", lambda x: dist.all_gather([x.clone() for _ in range(4)], x), MINE * 3),
        ("all_gather", lambda x: dist.group.WORLD._allgather_base(x.repeat(4), x), MINE * 3),
        ("all_gather", lambda x: wait(functional.all_gather_into_tensor(x, 4, "0")), MINE * 3),
        ("reduce_scatter", lambda x: dist.group.WORLD._reduce_scatter_base(x[:15].clone(), x), MINE * 3 // 4),
        ("reduce_scatter", lambda x: wait(functional.reduce_scatter_tensor(x, "sum", 4, "0")), MINE * 3 // 4),
        ("all_to_all", lambda x: dist.all_to_all_single(x.clone(), x), MINE * 3 // 4),
        ("all_to_all", lambda x: dist.all_to_all_single(x.clone(), x, [15] * 4, [0, 10, 20, 30]), MINE),
        ("send", lambda x: dist.send(x, 1), MINE),
    ],
)  # fmt: skip
def test_what_leaves_a_rank(
    four: ParallelContext, kind: str, call: Callable[[Tensor], None], sent: int
) -> None:
    with CommVolume(four) as volume:
        call(torch.zeros(60))
    assert volume.sent == {("all", kind): sent}


def test_a_collective_counts_for_the_axis_that_it_runs_along(four: ParallelContext) -> None:
    with CommVolume(four) as volume:
        four.sum(torch.zeros(60))
        dist.barrier()
        torch.zeros(60) + 1
    assert volume.sent == {("shard", "all_reduce"): MINE}
    assert [group.axis for group in comm_groups(four).values()] == ["shard", "tensor", "all"]


def test_a_rank_alone_is_in_no_group() -> None:
    assert comm_groups(SINGLE) == {}
