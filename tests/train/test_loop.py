"""The one training loop: exact resume, faults, accumulation."""

import itertools
import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from groundup.core.metrics import read_metrics
from groundup.core.runtime import Runtime
from groundup.train.loop import Probe
from groundup.train.optimizers.adamw import AdamW
from groundup.train.optimizers.muon import Muon
from loop_helpers import STEPS, Killed, batch, dying_at, go, net, poisoned, same, squared
from training_helpers import one_thread

__all__ = ["one_thread"]


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
        go(tmp_path, batches=dying_at(10), checkpoint_every=4)
    assert sorted(path.name for path in (tmp_path / "resume").iterdir()) == [
        "step-000000004", "step-000000008"]  # fmt: skip


class Reads(TorchDispatchMode):
    """Counts scalars that are brought to Python: on a GPU every one of them waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_step_reads_no_scalar_by_itself(tmp_path: Path) -> None:
    def plain(folder: str, **changes: Any) -> int:
        model = net()
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        with Reads() as reads:
            go(tmp_path / folder, model, optimizer=optimizer, batches=lambda step: batch(step) * 3,
               runtime=Runtime(checkpoint_seconds=1e6), **changes)  # fmt: skip
        return reads.seen

    def reading(model: Any, x: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
        loss, metrics = squared(model, x)
        return loss, {"loss read": loss.item()} | metrics

    assert plain("steps", steps=9) == plain("fewer", steps=3)
    assert plain("reading", steps=9, loss=reading) >= 27


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_waits_for_the_device_once(tmp_path: Path) -> None:
    model = net().cuda()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    waits: list[int] = []

    def looking(step: int) -> float:
        waits.append(len(caught))
        return 1.0

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            go(tmp_path, model, optimizer=optimizer, batches=lambda step: batch(step) * 3, schedule=looking,
               prefetch=True, runtime=Runtime(checkpoint_seconds=1e6))  # fmt: skip
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert [b - a for a, b in itertools.pairwise(waits[2:])] == [1] * (STEPS - 3)


class Looking:
    """A watch that tells what it saw."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.steps = model, list[int]()
        self.before: list[Tensor] = []

    def before_step(self, step: int) -> None:
        assert all(parameter.grad is not None for parameter in self.model.parameters())
        self.steps.append(step)
        self.before = [parameter.detach().clone() for parameter in self.model.parameters()]

    def after_step(self, step: int) -> dict[str, float | Tensor]:
        assert step == self.steps[-1]
        moved = sum(
            (p.detach() - q).norm() for p, q in zip(self.model.parameters(), self.before, strict=True)
        )
        return {"moved": moved, "seen": float(step)}


def test_a_watch_sees_every_step_that_is_taken(tmp_path: Path) -> None:
    model = net()
    watch = Looking(model)
    go(tmp_path, model, monitor=watch, batches=poisoned({2}))
    assert watch.steps == [1, 2, *range(4, STEPS + 1)]
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line.get("seen") for line in lines] == [None if n == 3 else n for n in range(1, STEPS + 1)]
    assert all(line["moved"] > 0 for line in lines if "moved" in line and line["lr_factor"] > 0)


def test_batches_made_ahead_change_nothing(tmp_path: Path) -> None:
    _, calm = go(tmp_path / "calm")
    _, ahead = go(tmp_path / "ahead", prefetch=True)
    assert same(calm, ahead)


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
        go(tmp_path / "rough", batches=asked, runtime=Runtime(checkpoint_seconds=1e6))
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
