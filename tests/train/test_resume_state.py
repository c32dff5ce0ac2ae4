"""States on disk: found damaged when they are, kept by policy, written in the background at a fair price."""

import errno
import json
import os
import random
import re
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from groundup.core import atomic_io
from groundup.core.errors import GroundupError
from groundup.parallel.context import ParallelContext
from groundup.parallel.engines.native import NativeEngine
from groundup.train import async_checkpoint as saving
from groundup.train.anomaly import AnomalyGuard
from groundup.train.async_checkpoint import MAX_COST_FRACTION, MIN_SECONDS, AsyncCheckpointer, interval
from groundup.train.optimizers.adamw import AdamW
from groundup.train.resume_state import (
    Environment,
    Progress,
    ResumeState,
    current_environment,
    load_state,
    snapshot,
    write_state,
)
from training_helpers import one_thread

__all__ = ["one_thread"]

HERE = current_environment(torch.device("cpu"))


def no_loss(model: nn.Module, batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    raise AssertionError("no gradient is asked for here")


class Training:
    """A model of two matrices with AdamW, and steps that move it."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))
        self.optimizer = AdamW(lr=0.01).build(self.model.named_parameters())
        self.learner = NativeEngine(self.model, self.optimizer, no_loss)
        self.progress, self.guard = Progress(), AnomalyGuard()

    def step(self) -> None:
        generator = torch.Generator().manual_seed(self.progress.step)
        self.model(torch.randn(3, 5, generator=generator)).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.progress.step += 1
        self.guard.note_applied(0.1 * self.progress.step, 1 / 3, False)

    def take(self, made_under: Environment = HERE) -> ResumeState:
        return snapshot(self.learner, self.progress, self.guard, made_under)

    def load(self, folder: Path, now: Environment = HERE) -> list[str]:
        said: list[str] = []
        self.progress, self.guard = load_state(folder, self.learner, now, said.append)
        return said

    def tensors(self) -> dict[str, torch.Tensor]:
        return self.take().tensors


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def trained(folder: Path, steps: int) -> Training:
    training = Training()
    for _ in range(steps):
        training.step()
        write_state(folder, training.take())
    return training


def test_a_state_gives_everything_back_and_training_goes_on_in_the_same_bits(tmp_path: Path) -> None:
    calm = trained(tmp_path, 3)
    again = Training()
    assert again.load(tmp_path) == []
    assert again.progress == calm.progress and again.guard == calm.guard
    assert same(again.tensors(), calm.tensors())
    assert any(name.endswith("exp_avg_sq") for name in again.tensors())
    calm.step()
    again.step()
    assert same(again.tensors(), calm.tensors())


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    trained(tmp_path, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000004", "step-000000005"]


def test_a_flipped_bit_anywhere_is_found_and_the_state_before_is_taken(tmp_path: Path) -> None:
    two = trained(tmp_path / "kept", 3) and trained(tmp_path / "two", 2)
    newest = tmp_path / "kept" / "step-000000003"
    chance = random.Random(7)
    tried = 0
    for name in ("state.safetensors", "state.json", "manifest.json"):
        size = (newest / name).stat().st_size
        few = sorted(chance.sample(range(size), min(size, 60)))
        for at in {0, size - 1, *few}:
            folder = tmp_path / "flipped"
            shutil.copytree(tmp_path / "kept", folder)
            data = bytearray((folder / newest.name / name).read_bytes())
            data[at] ^= 1 << chance.randrange(8)
            (folder / newest.name / name).write_bytes(data)
            again = Training()
            (said,) = again.load(folder)
            assert re.fullmatch(r"resume state step-000000003 is damaged \(.*\); using the one before", said)
            assert again.progress.step == 2 and same(again.tensors(), two.tensors()), (name, at)
            shutil.rmtree(folder)
            tried += 1
    assert tried > 150


@pytest.mark.parametrize("harm", ["shorter", "longer", "gone", "extra file", "empty folder", "no manifest"])
def test_other_damage_is_found_too(harm: str, tmp_path: Path) -> None:
    trained(tmp_path, 2)
    newest = tmp_path / "step-000000002"
    tensors = newest / "state.safetensors"
    if harm in ("shorter", "longer"):
        data = tensors.read_bytes()
        tensors.write_bytes(data[:-1] if harm == "shorter" else data + b"\0")
    elif harm == "extra file":
        (newest / "more").touch()
    else:
        gone = {"gone": [tensors], "no manifest": [newest / "manifest.json"]}.get(
            harm, list(newest.iterdir())
        )
        for path in gone:
            path.unlink()
    again = Training()
    assert "step-000000002 is damaged" in again.load(tmp_path)[0]
    assert again.progress.step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


def test_when_every_state_is_damaged_training_begins_anew(tmp_path: Path) -> None:
    trained(tmp_path, 2)
    for state in tmp_path.iterdir():
        (state / "state.json").write_text("{}")
    again = Training()
    assert len(again.load(tmp_path)) == 2
    assert again.progress == Progress() and same(again.tensors(), Training().tensors())


def test_what_a_killed_writer_left_is_swept_away(tmp_path: Path) -> None:
    trained(tmp_path, 1)
    for name in ("step-000000002.ab12cd34.part", "step-000000000.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text("{")
    (tmp_path / "sampled.json").write_text("[]")
    Training().load(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sampled.json", "step-000000001"]


def test_other_conditions_are_said_in_one_line_and_the_same_are_not(tmp_path: Path) -> None:
    training = Training()
    training.step()
    write_state(tmp_path, training.take({**HERE, "precision": "bf16", "threads": 8}))
    assert Training().load(tmp_path, {**HERE, "precision": "bf16", "threads": 8}) == []
    said = Training().load(tmp_path, {**HERE, "precision": "fp32", "threads": 2})
    assert said == [
        "the state was written with precision bf16 (now fp32), threads 8 (now 2): results will not be bit-identical"
    ]


def test_the_conditions_are_those_of_this_process() -> None:
    now = current_environment(torch.device("cpu"))
    assert now["threads"] == torch.get_num_threads() and now["torch"] == torch.__version__
    assert json.loads(json.dumps(now)) == now


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk_by_safetensors(*_: object) -> None:
    """As its writer puts it; a test on a real full disk is in `tests/faults`."""
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("moment", ["tensors", "counters", "fsync"])
def test_a_full_disk_is_told_in_bytes_and_leaves_no_half_state(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = trained(tmp_path, 2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    training.step()
    if moment == "fsync":
        monkeypatch.setattr(atomic_io, "_fsync_file", full_disk)
    elif moment == "counters":
        monkeypatch.setattr(Path, "write_text", full_disk)
    else:
        monkeypatch.setattr("groundup.train.resume_state.save_file", full_disk_by_safetensors)
    with pytest.raises(GroundupError) as told:
        write_state(tmp_path, training.take())
    said = str(told.value)
    assert f"the training state of step 3: No space left on device: {tmp_path}" in said
    assert f"it needs {training.take().size:,} bytes, and" in said and "bytes are free" in said
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_snapshot_does_not_change_with_the_training() -> None:
    training = Training()
    training.step()
    taken = training.take()
    copies = {name: tensor.clone() for name, tensor in taken.tensors.items()}
    training.step()
    assert same(taken.tensors, copies)
    assert not same(taken.tensors, training.tensors())
    assert taken.counters["progress"]["step"] == 1


class SlowDisk:
    """Stands in for `write_state`: notes what is written, waits to be let go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.go, self.error = threading.Event(), error
        self.begun: list[int] = []
        self.done: list[int] = []

    def __call__(self, folder: Path, state: ResumeState, world: ParallelContext) -> None:
        self.begun.append(state.step)
        assert self.go.wait(10)
        if self.error is not None:
            raise self.error
        self.done.append(state.step)


def taken(step: int) -> ResumeState:
    return ResumeState(step, {}, {})


def test_a_write_goes_on_while_the_training_does_and_only_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk()
    monkeypatch.setattr(saving, "write_state", disk)
    with AsyncCheckpointer(tmp_path, 60, writing_costs=True) as saver:
        saver.save(lambda: taken(1))
        assert disk.done == [], "save returns before the disk has it"
        second = threading.Thread(target=saver.save, args=(lambda: taken(2),))
        second.start()
        time.sleep(0.05)
        assert disk.begun == [1], "the second waits for the first"
        disk.go.set()
        second.join()
    assert disk.done == [1, 2], "leaving waits for the last"


def test_an_error_of_the_writer_reaches_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SlowDisk(GroundupError("no room"))
    disk.go.set()
    monkeypatch.setattr(saving, "write_state", disk)
    with pytest.raises(GroundupError, match="no room"), AsyncCheckpointer(tmp_path, 60, True) as saver:
        saver.save(lambda: taken(1))
        for _ in range(1000):
            saver.due()
            time.sleep(0.005)
        pytest.fail("the training never heard of it")
    with pytest.raises(GroundupError, match="no room"), AsyncCheckpointer(tmp_path, 60, True) as saver:
        saver.save(lambda: taken(1))
    with pytest.raises(KeyError), AsyncCheckpointer(tmp_path, 60, True) as saver:
        saver.save(lambda: taken(1))
        raise KeyError("the training's own error comes first")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_who_leaves_at_once_waits_for_no_disk(
    kind: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk()
    monkeypatch.setattr(saving, "write_state", disk)
    with pytest.raises(kind), AsyncCheckpointer(tmp_path, 60, True) as saver:
        saver.save(lambda: taken(1))
        raise kind
    assert disk.done == []
    disk.go.set()


def test_states_are_as_far_apart_as_their_cost_asks_for_and_never_farther_than_allowed() -> None:
    assert interval(cost=1.5, max_seconds=600) == pytest.approx(1.5 / MAX_COST_FRACTION)
    assert interval(cost=1.5, max_seconds=30) == 30
    assert interval(cost=0.001, max_seconds=600) == MIN_SECONDS
    assert interval(cost=0.001, max_seconds=0.2) == 0.2


@pytest.mark.parametrize(("writing_costs", "expected"), [(True, 0.1 / MAX_COST_FRACTION), (False, 0.0)])
def test_the_cost_is_measured(
    writing_costs: bool, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "write_state", lambda folder, state, world: time.sleep(0.1))
    monkeypatch.setattr(saving, "MIN_SECONDS", 0.0)
    with AsyncCheckpointer(tmp_path, 1e6, writing_costs) as saver:
        saver.save(lambda: taken(1))
        saver.wait()
        assert expected <= saver.interval < expected + 0.9 / MAX_COST_FRACTION


def test_a_resume_state_that_cannot_be_read_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "step-000000001"
    state.mkdir()
    (state / "manifest.json").write_text("{}")

    def refuse(path: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        load_state(tmp_path, None, {}, print)  # type: ignore[arg-type]
    assert state.is_dir()
