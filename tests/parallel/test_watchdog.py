"""A rank that hangs is named, with its location, by the ranks that wait for it."""

import multiprocessing
import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

import ranks_helpers
from groundup.parallel.watchdog import EXIT_RESTART, Heartbeat, find_culprit


def beat(
    step: int, location: str = "take (step.py:1)", waits: bool = False, count: int = 7, **more: bool
) -> Heartbeat:
    return Heartbeat(count, f"host-{location[0]}", step, location, waits, **more)


@pytest.mark.parametrize(
    ("heartbeats", "silent", "message"),
    [({0: beat(4, waits=True), 1: beat(4, "read (rows.py:3)")}, set(),
      "rank 1 on host-r hung for 60 seconds in read (rows.py:3) at step 4"),
     ({0: beat(3, waits=True), 1: beat(4)}, set(), "rank 0 on host-t hung for"),
     ({0: beat(3), 1: beat(4, waits=True)}, {1}, "rank 1 on host-t stopped sending heartbeats; the last one was in"),
     ({0: beat(9, done=True), 1: beat(9, waits=True)}, {0}, "rank 1 on host-t hung for"),
     ({0: beat(1)}, set(), "rank 1 did not start within 60 seconds")],
)  # fmt: skip
def test_the_rank_that_the_others_wait_for_is_found(
    heartbeats: dict[int, Heartbeat], silent: set[int], message: str
) -> None:
    before = {rank: heartbeats[rank] if rank in silent else beat(0, count=1) for rank in heartbeats}
    assert find_culprit(before, heartbeats, 2, 60.0).startswith(message)


@pytest.mark.parametrize(
    ("how", "message"),
    [(0, "rank 1 on {host} hung for 3 seconds in hangs (ranks_helpers.py:"),
     (signal.SIGSTOP, "rank 1 on {host} stopped sending heartbeats; the last one was in ")],
)  # fmt: skip
def test_waiting_ranks_name_the_one_that_hangs_and_exit(tmp_path: Path, how: int, message: str) -> None:
    store = dist.TCPStore("localhost", 0, None, True, timedelta(seconds=60), wait_for_workers=False)
    context = multiprocessing.get_context("forkserver")
    ranks = [
        context.Process(target=ranks_helpers.watched, args=(store.port, rank, how, tmp_path))
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
    output = "".join((tmp_path / f"stderr-{rank}").read_text() for rank in range(2))
    assert output.startswith("groundup: " + message.format(host=os.uname().nodename))
    assert output.count("\n") == 1
