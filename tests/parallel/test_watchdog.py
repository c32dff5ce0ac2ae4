"""Who stands still is named, where it stood, by those who wait for it."""

import multiprocessing
import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

import ranks_world
from groundup.parallel.watchdog import EXIT_RESTART, Heartbeat, find_culprit


def stand(
    step: int, where: str = "take (step.py:1)", waits: bool = False, beat: int = 7, **more: bool
) -> Heartbeat:
    return Heartbeat(beat, f"host-{where[0]}", step, where, waits, **more)


@pytest.mark.parametrize(
    ("stands", "silent", "told"),
    [({0: stand(4, waits=True), 1: stand(4, "read (rows.py:3)")}, set(),
      "rank 1 on host-r stood still for 60 seconds in read (rows.py:3) at step 4"),
     ({0: stand(3, waits=True), 1: stand(4)}, set(), "rank 0 on host-t stood still"),
     ({0: stand(3), 1: stand(4, waits=True)}, {1}, "rank 1 on host-t gives no sign of life any more; last heard of in"),
     ({0: stand(9, done=True), 1: stand(9, waits=True)}, {0}, "rank 1 on host-t stood still"),
     ({0: stand(1)}, set(), "rank 1 has not begun within 60 seconds")],
)  # fmt: skip
def test_the_one_that_the_others_wait_for(stands: dict[int, Heartbeat], silent: set[int], told: str) -> None:
    before = {rank: stands[rank] if rank in silent else stand(0, beat=1) for rank in stands}
    assert find_culprit(before, stands, 2, 60.0).startswith(told)


@pytest.mark.parametrize(
    ("how", "told"),
    [(0, "rank 1 on {host} stood still for 3 seconds in stands_still (ranks_world.py:"),
     (signal.SIGSTOP, "rank 1 on {host} gives no sign of life any more; last heard of in ")],
)  # fmt: skip
def test_ranks_that_wait_for_one_that_hangs_say_which_and_leave(tmp_path: Path, how: int, told: str) -> None:
    store = dist.TCPStore("localhost", 0, None, True, timedelta(seconds=60), wait_for_workers=False)
    context = multiprocessing.get_context("forkserver")
    ranks = [
        context.Process(target=ranks_world.looks_out, args=(store.port, rank, how, tmp_path))
        for rank in range(2)
    ]
    try:
        for rank in ranks:
            rank.start()
        ranks[0].join(60)
        assert ranks[0].exitcode == EXIT_RESTART
        if not how:
            ranks[1].join(60)
            assert ranks[1].exitcode == EXIT_RESTART
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()
    said = "".join((tmp_path / f"said-{rank}").read_text() for rank in range(2))
    assert said.startswith("groundup: " + told.format(host=os.uname().nodename))
    assert said.count("\n") == 1
