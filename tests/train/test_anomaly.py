"""The guard: what is a fault, and that a healthy training has none."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.losses import cross_entropy
from groundup.train.anomaly import HISTORY, IN_A_ROW, MIN_HISTORY, SIGMAS, AnomalyGuard, spike_threshold
from groundup.train.schedules import schedule_factor
from training_helpers import one_thread

__all__ = ["one_thread"]


def settled(
    steps: int = 60, loss: float = 3.0, norm: float = 1.0, noise: float = 0.05, seed: int = 0
) -> AnomalyGuard:
    guard, draw = AnomalyGuard(), np.random.default_rng(seed)
    for _ in range(steps):
        guard.note_applied(
            loss + noise * draw.standard_normal(), norm * math.exp(0.3 * draw.standard_normal()), False
        )
    return guard


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_a_fault_from_the_first_step_on(bad: float) -> None:
    assert "loss was" in (AnomalyGuard().fault(bad, 1.0, spikes=False) or "")
    assert "gradient norm was" in (AnomalyGuard().fault(1.0, bad, spikes=False) or "")
    assert AnomalyGuard().fault(1e9, 1e9, spikes=True) is None


def test_a_spike_is_named_with_what_was_usual() -> None:
    guard = settled()
    assert guard.fault(3.1, 2.0, spikes=True) is None
    assert "loss spiked to 9; the median of the recent steps was 3.0" in (
        guard.fault(9.0, 1.0, spikes=True) or ""
    )
    assert "gradient norm spiked to 50" in (guard.fault(3.0, 50.0, spikes=True) or "")
    assert guard.fault(9.0, 50.0, spikes=False) is None
    assert guard.fault(0.001, 0.001, spikes=True) is None, "lower is no spike"


def test_the_threshold_is_median_and_median_deviation_as_numpy_has_them() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 101)
    deviation = 1.4826 * np.median(np.abs(values - np.median(values)))
    assert spike_threshold(values.tolist(), 0.0) == pytest.approx(np.median(values) + SIGMAS * deviation)
    assert spike_threshold([2.0] * 50, 0.25) == pytest.approx(2.5)
    assert spike_threshold([2.0] * (MIN_HISTORY - 1), 0.25) == math.inf


def test_a_long_upper_tail_counts_as_noise() -> None:
    """Losses of a corpus that is nearly memorized: most near 0, one in five batches far above."""
    draw = np.random.default_rng(3)
    values = np.where(draw.random(128) < 0.2, draw.uniform(0.5, 2.5, 128), 0.02 * draw.random(128))
    assert spike_threshold(values.tolist(), 0.25) > 2.5
    assert spike_threshold(values.tolist(), 0.25) < 20


@pytest.mark.parametrize(("rate", "rows"), [(0.01, 1), (0.02, 4)])
def test_memorizing_ten_documents_at_width_32_is_never_stopped(rate: float, rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    documents = torch.randint(0, 64, (10, 65), generator=generator)
    documents[::2] = torch.arange(65) % 7 + torch.arange(0, 10, 2)[:, None]
    model = Decoder(DecoderConfig(64, 32, 1, 2, 2, 16, 64, max_seq_len=64))
    model.init_weights(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    guard, in_a_row, faults = AnomalyGuard(), 0, 0
    for _ in range(700):
        batch = documents[torch.randint(0, 10, (rows,), generator=generator)]
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        fault = guard.fault(loss.item(), norm, spikes=True)
        faults, in_a_row = faults + (fault is not None), in_a_row + 1 if fault else 0
        assert in_a_row < IN_A_ROW
        guard.note_applied(loss.item(), norm, False)
        optimizer.step()
    assert loss.item() < 0.1 and faults <= 1, "thresholds of the median deviation alone: 9 to 155 faults"


def test_outliers_that_were_taken_do_not_move_the_threshold_much() -> None:
    values = np.random.default_rng(2).normal(3.0, 0.1, 100)
    with_outliers = np.concatenate([values, np.full(10, 1e6)])
    assert spike_threshold(with_outliers.tolist(), 0.0) < 1.5 * spike_threshold(values.tolist(), 0.0)


def test_a_new_level_below_becomes_usual_and_skipped_steps_are_forgotten() -> None:
    guard = settled(HISTORY, loss=9.0)
    for _ in range(HISTORY):
        guard.note_applied(2.0, 1.0, False)
    assert guard.fault(9.0, 1.0, spikes=True) is not None
    assert len(guard.losses) == len(guard.norms) == HISTORY
    before = list(guard.losses)
    guard.note_skipped()
    assert guard.losses == before and (guard.skipped, guard.skipped_in_a_row) == (1, 1)
    guard.note_applied(2.0, 1.0, transient=True)
    assert (guard.skipped, guard.skipped_in_a_row, guard.transient) == (1, 0, 1)


def test_what_is_saved_is_the_guard_to_the_last_bit() -> None:
    guard = settled()
    guard.note_skipped()
    assert AnomalyGuard(**json.loads(json.dumps(asdict(guard)))) == guard


def words(seed: int) -> torch.Tensor:
    """Rows of text that can be learnt: most tokens follow from the one before, some from nothing. [512, 65]"""
    draw = np.random.default_rng(seed)
    follows = draw.permutation(96)
    rows = draw.integers(0, 96, (512, 65))
    for at in range(1, 65):
        rows[:, at] = np.where(draw.random(512) < 0.8, follows[rows[:, at - 1]], rows[:, at])
    return torch.from_numpy(rows)


@pytest.mark.parametrize("seed", range(2))
def test_a_training_with_small_batches_is_never_interrupted_and_garbage_always_is(seed: int) -> None:
    """300 steps at a high rate with a batch of two rows: figures as noisy as they come."""
    rows = words(seed)
    model = Decoder(DecoderConfig(96, 32, 2, 2, 2, 16, 64, max_seq_len=64))
    model.init_weights(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    guard = AnomalyGuard()

    def figures(batch: torch.Tensor) -> tuple[float, float]:
        optimizer.zero_grad()
        weights = torch.full((batch.shape[0] * 64,), 1 / (batch.shape[0] * 64))
        hidden = model.hidden(batch[:, :-1].contiguous()).flatten(0, 1)
        loss, _ = cross_entropy(hidden, model.head_weight, batch[:, 1:].flatten(), weights)
        loss.backward()
        return loss.item(), float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0))

    for step in range(300):
        loss, norm = figures(rows[2 * step % 512 :][:2])
        assert guard.fault(loss, norm, spikes=True) is None, f"step {step}: {loss}, {norm}"
        guard.note_applied(loss, norm, False)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * schedule_factor("linear", step, 300, 6, 0.0, 0.4)
        optimizer.step()
    garbage = torch.randint(0, 96, (2, 65), generator=torch.Generator().manual_seed(seed))
    assert guard.fault(*figures(garbage), spikes=True) is not None
