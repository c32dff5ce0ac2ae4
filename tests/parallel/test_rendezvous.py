"""Ranks of one start find one another, and nobody else."""

import threading
import uuid
from datetime import timedelta

import pytest
import torch.distributed as dist

from cluster_helpers import free_port
from groundup.parallel.rendezvous import RankAddress, RendezvousError, rendezvous


def places(ranks: int, port: int) -> list[RankAddress]:
    return [RankAddress(rank, ranks, rank, ranks, "localhost", port) for rank in range(ranks)]


def together(ranks: list[RankAddress]) -> list[str]:
    """Meet in as many threads; the words they were told, and what rank 0 wrote as all of them read it."""
    words: list[str] = []

    def come(place: RankAddress) -> None:
        store, word = rendezvous(place, 20.0)
        if place.rank == 0:
            store.set("hello", "from rank 0")
        words.append(f"{word} {store.get('hello').decode()}")
        left.wait(20)  # rank 0 keeps the store

    left = threading.Barrier(len(ranks))
    threads = [threading.Thread(target=come, args=(place,)) for place in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return words


def test_all_are_told_the_same_word() -> None:
    words = together(places(3, free_port()))
    assert len(words) == 3 and len(set(words)) == 1
    assert words[0].endswith(" from rank 0")


def test_ranks_of_an_earlier_start_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    agent = dist.TCPStore("localhost", 0, None, True, timedelta(seconds=20), wait_for_workers=False)
    starts = [together(places(2, agent.port)) for _ in range(3)]
    assert [len(set(words)) for words in starts] == [1, 1, 1]
    assert len({words[0] for words in starts}) == 3


def test_who_has_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    agent = dist.TCPStore("localhost", 0, None, True, timedelta(seconds=20), wait_for_workers=False)
    agent.set("groundup/1", uuid.uuid4().hex)  # dead by now
    with pytest.raises(
        RendezvousError, match=r"rank 0 waited 1 seconds .* 2 of 3 ranks did not connect: 1, 2\. Check"
    ):
        rendezvous(places(3, agent.port)[0], 0.5 + 0.1)


def test_a_place_that_nobody_has_opened_is_named() -> None:
    port = free_port()
    with pytest.raises(
        RendezvousError, match=rf"rank 1 waited 1 seconds for the other ranks at localhost:{port}: "
    ):
        rendezvous(places(2, port)[1], 1.0)
