"""Schedules against their definitions."""

import math

import pytest

from groundup.train.schedules import ScheduleName, schedule_factor


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "wsd"])
def test_the_warm_up_rises_to_one(kind: str) -> None:
    factors = [schedule_factor(kind, step, 100, warmup_steps=10) for step in range(11)]  # type: ignore[arg-type]
    assert factors[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert factors[10] == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["linear", "cosine", "wsd"])
def test_the_end_is_reached(kind: str) -> None:
    assert schedule_factor(kind, 1000, 1000, 100, min_lr_ratio=0.1) == pytest.approx(0.1)  # type: ignore[arg-type]
    factors = [schedule_factor(kind, step, 1000, 100) for step in range(100, 1000)]  # type: ignore[arg-type]
    assert factors == sorted(factors, reverse=True)


def test_in_the_middle() -> None:
    assert schedule_factor("constant", 500, 1000) == 1.0
    assert schedule_factor("linear", 500, 1000) == pytest.approx(0.5)
    assert schedule_factor("cosine", 250, 1000) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert schedule_factor("wsd", 599, 1000, decay_fraction=0.4) == 1.0
    assert schedule_factor("wsd", 800, 1000, decay_fraction=0.4) == pytest.approx(0.5)


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_an_anneal_of_a_stable_checkpoint_is_the_end_of_a_whole_wsd_run(final: float) -> None:
    stable, decay = 300, 100
    share = decay / (stable + decay)
    for step in range(stable + decay):
        whole = schedule_factor("wsd", step, stable + decay, 20, final, share)
        if step < stable:
            resumed = schedule_factor("constant", step, 10**6, 20)
        else:
            resumed = schedule_factor("linear", step, stable + decay, min_lr_ratio=final, start=stable)
        assert resumed == pytest.approx(whole)


def test_wsd_is_the_formula_of_its_paper() -> None:
    warmup, stable, total = 50, 400, 500  # MiniCPM: rises to W, 1 to S, then decays (here linearly)
    for step in range(warmup, total):
        wanted = 1.0 if step < stable else 1 - (step - stable) / (total - stable)
        assert schedule_factor("wsd", step, total, warmup, decay_fraction=0.2) == pytest.approx(wanted)


def test_cosine_is_the_formula_of_its_paper() -> None:
    for step in range(500):
        wanted = 0.1 + 0.5 * (1 - 0.1) * (1 + math.cos(math.pi * step / 500))
        assert schedule_factor("cosine", step, 500, min_lr_ratio=0.1) == pytest.approx(wanted)


def test_a_schedule_that_begins_later_is_the_same_one_moved() -> None:
    for kind in ("linear", "cosine", "wsd"):
        for step in range(0, 100, 7):
            early = schedule_factor(kind, step, 100, 10, 0.2)
            assert schedule_factor(kind, step + 1000, 1100, 10, 0.2, start=1000) == early


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "wsd"])
def test_steps_after_the_last_one_keep_the_last_factor(kind: ScheduleName) -> None:
    last = schedule_factor(kind, 100, 100, 10, 0.2)
    assert [schedule_factor(kind, step, 100, 10, 0.2) for step in (101, 150, 200, 10_000)] == [last] * 4
