"""The one training loop: exact resume, faults, accumulation."""

import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groundup.core.errors import TrainingError
from groundup.core.metrics import read_metrics
from groundup.core.progress import Reporter
from groundup.core.recipe import Site
from groundup.core.stage import Work
from groundup.train.loop import Probe, TrainResult, train
from groundup.train.optimizers.adamw import AdamW
from groundup.train.optimizers.muon import Muon

STEPS = 12
EAGER = Site(checkpoint_seconds=1e-6)
"""Saves after every step."""


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 1))


def batch(step: int) -> list[Tensor]:
    return [torch.randn(4, 6, generator=torch.Generator().manual_seed(step))]


def squared(model: Any, x: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
    loss = (model(x)[:, 0] - x.sum(dim=1)).square().mean()
    return loss, {"rows": float(len(x))}


def go(
    folder: Path, model: nn.Module | None = None, quiet: bool = True, **changes: Any
) -> tuple[TrainResult, nn.Module]:
    model = model or net()
    optimizer = changes.pop("optimizer", None) or Muon(lr=0.05, adam_lr=0.01).build(model.named_parameters())
    arguments: dict[str, Any] = {
        "batches": batch, "loss": squared, "schedule": lambda step: 1 - step / STEPS, "steps": STEPS,
        "out": Work(folder, Reporter(quiet=quiet)), "site": EAGER,
    }  # fmt: skip
    return train(model=model, optimizer=optimizer, **(arguments | changes)), model


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


class Killed(Exception):
    pass


def dying_at(step: int) -> Callable[[int], list[Tensor]]:
    def batches(at: int) -> list[Tensor]:
        if at == step:
            raise Killed
        return batch(at)

    return batches


@pytest.mark.parametrize("step", [1, 5, 11])
def test_a_run_that_died_ends_in_the_same_bits_and_the_same_log(step: int, tmp_path: Path) -> None:
    _, calm = go(tmp_path / "calm")
    with pytest.raises(Killed):
        go(tmp_path / "rough", batches=dying_at(step))
    result, rough = go(tmp_path / "rough", model=nn.Sequential(*net().children()))
    assert same(calm, rough)
    assert result.steps == STEPS
    calm_log, rough_log = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("calm", "rough"))
    assert [line["loss"] for line in rough_log] == [line["loss"] for line in calm_log]


def test_a_damaged_newest_state_falls_back_to_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, calm = go(tmp_path / "calm")
    with pytest.raises(Killed):
        go(tmp_path / "rough", batches=dying_at(7))
    newest = tmp_path / "rough" / "resume" / "step-000000007" / "state.safetensors"
    data = bytearray(newest.read_bytes())
    data[-3] ^= 1
    newest.write_bytes(data)
    _, rough = go(tmp_path / "rough", quiet=False)
    assert same(calm, rough)
    said = capsys.readouterr().err
    assert "step-000000007 is damaged" in said
    assert "continuing train at step 6 of 12" in said


def test_states_torn_in_every_way_are_passed_over(tmp_path: Path) -> None:
    _, calm = go(tmp_path / "calm")
    with pytest.raises(Killed):
        go(tmp_path / "rough", batches=dying_at(7))
    resume = tmp_path / "rough" / "resume"
    (resume / "step-000000007" / "state.json").write_text('{"progress": ')
    (resume / "step-000000006" / "state.safetensors").unlink()
    (resume / "step-000000099.part").mkdir()
    _, rough = go(tmp_path / "rough")
    assert same(calm, rough)


def test_only_the_two_newest_states_are_kept(tmp_path: Path) -> None:
    go(tmp_path)
    assert sorted(path.name for path in (tmp_path / "resume").iterdir()) == [
        "step-000000011", "step-000000012"]  # fmt: skip


def test_states_lie_at_boundaries_only(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        go(tmp_path, batches=dying_at(10), boundary=4)
    assert sorted(path.name for path in (tmp_path / "resume").iterdir()) == [
        "step-000000004", "step-000000008"]  # fmt: skip


def poisoned(bad: set[int]) -> Callable[[int], list[Tensor]]:
    return lambda step: [torch.full((4, 6), math.nan)] if step in bad else batch(step)


def test_a_step_that_is_not_finite_is_skipped_counted_and_changes_nothing(tmp_path: Path) -> None:
    result, model = go(tmp_path, batches=poisoned({2, 3, 8}))
    assert result.skipped_steps == 3
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines if line.get("skipped")] == [3, 4, 9]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[2])["loss"] == "nan"


def test_five_in_a_row_stop_the_run_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"5 steps in a row up to step 8.*Lower the learning rate"):
        go(tmp_path, batches=poisoned({3, 4, 5, 6, 7}))


def test_micro_batches_give_the_step_of_the_whole_batch(tmp_path: Path) -> None:
    def part(model: Any, x: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
        return (model(x)[:, 0] - x.sum(dim=1)).square().sum() / 4, {"rows": float(len(x))}

    _, whole = go(tmp_path / "whole")
    _, parts = go(
        tmp_path / "parts", loss=part, batches=lambda step: list(torch.split(batch(step)[0], [1, 3]))
    )
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert read_metrics(tmp_path / "parts" / "metrics.jsonl")[0]["rows"] == 4


def test_the_gradient_is_clipped_to_its_norm(tmp_path: Path) -> None:
    model = nn.Linear(6, 1, bias=False)
    before = model.weight.detach().clone()
    plain = torch.optim.SGD(model.parameters(), lr=1.0)
    go(tmp_path, model, optimizer=plain, steps=1, schedule=lambda _: 1.0, grad_clip=0.25)
    assert (model.weight - before).norm().item() == pytest.approx(0.25, rel=1e-4)
    assert read_metrics(tmp_path / "metrics.jsonl")[0]["grad_norm"] > 0.25


def test_batches_may_end_the_training(tmp_path: Path) -> None:
    result, model = go(tmp_path, batches=lambda step: None if step == 5 else batch(step))
    assert (result.steps, result.ended_early) == (5, True)
    again, other = go(tmp_path, batches=dying_at(0))
    assert again.ended_early
    assert same(model, other)


def test_probes_run_at_their_steps_and_at_the_end(tmp_path: Path) -> None:
    seen: list[int] = []

    def look(step: int) -> dict[str, float]:
        seen.append(step)
        return {"seen": float(step)}

    go(tmp_path, probes=[Probe(5, look)])
    assert seen == [5, 10, 12]


@pytest.fixture
def default_sigterm() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("default_sigterm")
def test_sigterm_saves_the_step_and_leaves(tmp_path: Path) -> None:
    _, calm = go(tmp_path / "calm")

    def asked(step: int) -> list[Tensor]:
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(step)

    with pytest.raises(SystemExit) as left:
        go(tmp_path / "rough", batches=asked, site=Site(checkpoint_seconds=1e6))
    assert left.value.code == 143
    assert [path.name for path in (tmp_path / "rough" / "resume").iterdir()] == ["step-000000007"]
    _, rough = go(tmp_path / "rough")
    assert same(calm, rough)


@pytest.mark.parametrize("part", [AdamW(lr=0.02), Muon(lr=0.02, adam_lr=0.02)])
def test_optimizers_lower_the_loss_and_resume_exactly(part: AdamW | Muon, tmp_path: Path) -> None:
    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return part.build(model.named_parameters())

    calm = net()
    go(tmp_path / "calm", calm, optimizer=optimizer(calm))
    rough = net()
    with pytest.raises(Killed):
        go(tmp_path / "rough", rough, optimizer=optimizer(rough), batches=dying_at(6))
    other = net()
    go(tmp_path / "rough", other, optimizer=optimizer(other))
    assert same(calm, other)
    losses = [line["loss"] for line in read_metrics(tmp_path / "calm" / "metrics.jsonl")]
    assert sum(losses[-3:]) < sum(losses[:3])
