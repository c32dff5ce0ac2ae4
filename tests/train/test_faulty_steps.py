"""Steps that go wrong: computed again, skipped, named; three in a row end the training."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from groundup.core.errors import TrainingError
from groundup.core.metrics import read_metrics
from groundup.train.loop import TrainResult
from loop_helpers import Killed, batch, dying_at, go, net, poisoned, same, squared
from training_helpers import one_thread

__all__ = ["one_thread"]


def test_a_step_that_is_not_finite_is_skipped_counted_and_changes_nothing(tmp_path: Path) -> None:
    result, model = go(tmp_path, batches=poisoned({2, 3, 8}))
    assert result.skipped_steps == 3
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines if line.get("skipped")] == [3, 4, 9]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[2])["loss"] == "nan"


def test_three_in_a_row_go_back_to_the_last_good_state_and_stop_with_the_documents(tmp_path: Path) -> None:
    model = net()
    with pytest.raises(TrainingError) as stopped:
        go(
            tmp_path,
            model,
            batches=poisoned({1, 7, 8, 9}),
            checkpoint_every=4,
            document_ids=lambda step: [f"doc-{step}", "d"],
        )
    said = str(stopped.value)
    assert "3 consecutive steps up to step 10" in said and "loss was nan" in said
    assert "documents doc-7, d, doc-8, doc-9 (all are in" in said and str(tmp_path / "skipped.jsonl") in said
    assert (
        "Lower the learning rate" in said and "Rerunning continues from step 4 and fails here again" in said
    )
    four, _ = after_four(tmp_path / "four")
    assert same(model, four)
    assert [path.name for path in (tmp_path / "resume").iterdir()] == ["step-000000004"]
    assert [line["documents"] for line in read_metrics(tmp_path / "skipped.jsonl")] == [
        ["doc-1", "d"], ["doc-7", "d"], ["doc-8", "d"], ["doc-9", "d"]]  # fmt: skip


def after_four(folder: Path) -> tuple[nn.Module, TrainResult]:
    """The same training with its first poisoned step alone, up to step 4."""
    model = net()
    result, _ = go(folder, model, batches=poisoned({1}), steps=4)
    return model, result


def test_a_run_that_stopped_ends_like_any_other_once_its_data_is_right(tmp_path: Path) -> None:
    calm = poisoned({1})
    _, expected = go(tmp_path / "calm", batches=calm)
    with pytest.raises(TrainingError):
        go(tmp_path / "rough", batches=poisoned({1, 7, 8, 9}))
    result, again = go(tmp_path / "rough", batches=calm)
    assert same(expected, again)
    assert result.skipped_steps == 1
    assert [line["step"] for line in read_metrics(tmp_path / "rough" / "skipped.jsonl")] == [2]


def test_no_state_is_saved_while_steps_are_being_skipped(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        go(tmp_path, batches=lambda step: dying_at(9)(step) if step == 9 else poisoned({7, 8})(step))
    assert sorted(path.name for path in (tmp_path / "resume").iterdir()) == [
        "step-000000006", "step-000000007"]  # fmt: skip


def failing_once(kind: str, at: int) -> Callable[[Any, Tensor], tuple[Tensor, dict[str, Tensor | float]]]:
    """The loss, whose computation number `at` goes wrong as a flipped bit makes it go wrong."""
    calls = iter(range(10**9))

    def loss(model: Any, x: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
        value, metrics = squared(model, x)
        if next(calls) == at:
            if kind == "gradient":
                value.register_hook(lambda grad: grad * math.nan)
            else:
                value = value * {"nan": math.nan, "inf": math.inf}[kind]
        return value, metrics

    return loss


@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
def test_a_fault_that_passes_costs_a_second_computation_and_no_bit(kind: str, tmp_path: Path) -> None:
    calm, expected = go(tmp_path / "calm")
    result, model = go(tmp_path / "rough", loss=failing_once(kind, 5))
    assert same(expected, model)
    assert (result.skipped_steps, result.transient_steps, calm.transient_steps) == (0, 1, 0)
    lines = read_metrics(tmp_path / "rough" / "metrics.jsonl")
    assert [line["step"] for line in lines if line.get("transient")] == [6]
    assert "nan" in lines[5]["reason"] or "inf" in lines[5]["reason"]
    assert not (tmp_path / "rough" / "skipped.jsonl").exists()


def test_a_spike_is_skipped_and_a_resumed_run_judges_alike(tmp_path: Path) -> None:
    """A batch of garbage after enough history; killed before it, after it, or never."""

    def garbage(step: int) -> list[Tensor]:
        return [batch(step)[0] * 40] if step == 45 else batch(step)

    def dying(at: int) -> Callable[[int], list[Tensor]]:
        return lambda step: dying_at(at)(step) if step == at else garbage(step)

    many = {
        "steps": 60,
        "schedule": lambda step: 0.2,
        "detect_spikes": True,
        "document_ids": lambda step: [f"d{step}"],
    }
    result, expected = go(tmp_path / "calm", batches=garbage, **many)
    assert result.skipped_steps == 1
    skipped = read_metrics(tmp_path / "calm" / "skipped.jsonl")
    assert [(line["step"], line["documents"]) for line in skipped] == [(46, ["d45"])]
    assert "spiked" in skipped[0]["reason"]
    for at in (44, 47):
        with pytest.raises(Killed):
            go(tmp_path / f"{at}", batches=dying(at), **many)
        again, model = go(tmp_path / f"{at}", batches=garbage, **many)
        assert same(expected, model) and again.skipped_steps == 1
        assert read_metrics(tmp_path / f"{at}" / "skipped.jsonl") == skipped
    without, _ = go(tmp_path / "off", batches=garbage, **(many | {"detect_spikes": False}))
    assert without.skipped_steps == 0
