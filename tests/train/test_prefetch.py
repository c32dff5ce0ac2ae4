"""Batches made ahead: on time, at their own step, and no thread stays behind."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from groundup.train.prefetch import prefetched, to_device

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    assert [one.name for one in threading.enumerate() if one.name.startswith("prefetch")] == []


def test_every_step_gets_its_own_batches_in_any_order() -> None:
    with prefetched(lambda step: [step, 10 * step], 10, CPU) as take:
        assert [take(step) for step in (0, 1, 2, 7, 8, 3, 9)] == [
            [step, 10 * step] for step in (0, 1, 2, 7, 8, 3, 9)]  # fmt: skip


def test_the_next_step_is_made_meanwhile_and_none_further() -> None:
    made: list[int] = []
    ready = threading.Event()

    def batches(step: int) -> list[int]:
        made.append(step)
        if step == 4:
            ready.set()
        return [step]

    with prefetched(batches, 6, CPU) as take:
        take(3)
        assert ready.wait(5)
        time.sleep(0.05)
        assert made == [3, 4]
        assert [take(4), take(5)] == [[4], [5]]
    assert made == [3, 4, 5], "none is made twice, and none beyond the last"


def test_an_error_comes_with_its_own_step_and_none_when_nobody_asks() -> None:
    def batches(step: int) -> list[int] | None:
        if step == 2:
            raise ValueError("row 7 is torn")
        return None if step == 5 else [step]

    with prefetched(batches, 9, CPU) as take:
        assert take(1) == [1]
        with pytest.raises(ValueError, match="row 7 is torn"):
            take(2)
        assert take(1) == [1]
    with prefetched(batches, 9, CPU) as take:
        assert take(5) is None


def test_the_thread_ends_when_the_step_fails() -> None:
    with pytest.raises(KeyError), prefetched(lambda step: [step], 9, CPU) as take:
        take(0)
        raise KeyError


@dataclass(frozen=True)
class Inner:
    ids: torch.Tensor
    places: tuple[int, ...]


@dataclass(frozen=True)
class Outer:
    inner: Inner
    parts: list[torch.Tensor]
    total: float


def test_tensors_are_moved_wherever_they_lie() -> None:
    batch = Outer(Inner(torch.arange(3), (1, 2)), [torch.ones(2)], 2.5)
    moved = to_device(batch, torch.device("meta"))
    assert (moved.inner.ids.device.type, moved.parts[0].device.type) == ("meta", "meta")
    assert (moved.inner.places, moved.total) == ((1, 2), 2.5)
    assert to_device(Inner(batch.inner.ids, (1,)), CPU).ids is batch.inner.ids, "nothing is copied in vain"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_arrive_on_the_device() -> None:
    with prefetched(lambda step: [Inner(torch.full((4,), step), ())], 3, torch.device("cuda", 0)) as take:
        for step in range(3):
            made = take(step)
            assert made is not None and made[0].ids.is_cuda and made[0].ids.tolist() == [step] * 4
