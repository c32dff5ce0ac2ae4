"""Schedules against their definitions."""

import math

import pytest

from groundup.train.schedules import schedule_factor


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "wsd"])
def test_the_warm_up_rises_to_one(kind: str) -> None:
    factors = [schedule_factor(kind, step, 100, warmup=10) for step in range(11)]  # type: ignore[arg-type]
    assert factors[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert factors[10] == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["linear", "cosine", "wsd"])
def test_the_end_is_reached(kind: str) -> None:
    assert schedule_factor(kind, 1000, 1000, 100, final=0.1) == pytest.approx(0.1)  # type: ignore[arg-type]
    factors = [schedule_factor(kind, step, 1000, 100) for step in range(100, 1000)]  # type: ignore[arg-type]
    assert factors == sorted(factors, reverse=True)


def test_in_the_middle() -> None:
    assert schedule_factor("constant", 500, 1000) == 1.0
    assert schedule_factor("linear", 500, 1000) == pytest.approx(0.5)
    assert schedule_factor("cosine", 250, 1000) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert schedule_factor("wsd", 599, 1000, decay_share=0.4) == 1.0
    assert schedule_factor("wsd", 800, 1000, decay_share=0.4) == pytest.approx(0.5)
