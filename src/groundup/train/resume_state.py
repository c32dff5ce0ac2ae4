"""Resume states of an interrupted training: one folder per state.

in:  weights, optimizer state, counters and the anomaly guard's history, at a step
out: step-<n>/{state.safetensors, state.json, manifest.json}, complete or absent; the same objects loaded again

The manifest lists size and SHA-256 of every other file and is recomputed when a state is read, so that one flipped byte
anywhere is detected, also in the manifest. A damaged state is replaced by the one before it.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from groundup.core.atomic_io import file_entry, first_mismatch, publish_dir, remove, temp_path
from groundup.core.os_errors import explain_os_errors
from groundup.parallel.context import SINGLE, ParallelContext
from groundup.parallel.engine import TrainEngine
from groundup.parallel.shard import local
from groundup.parallel.sharded_checkpoint import SINGLE_FILE, save_sharded
from groundup.train.anomaly import AnomalyGuard

KEPT = 2
"""Newest states that are kept, so that one is left when the newest is damaged."""
COUNTERS, MANIFEST = "state.json", "manifest.json"

Environment = Mapping[str, Any]
"""Settings beside the recipe that decide a result's bits, e.g. {"threads": 2}; plain JSON."""


@dataclass
class Progress:
    """Counters of a training. Seconds and steps are summed over interruptions."""

    step: int = 0
    seconds: float = 0.0
    timed_seconds: float = 0.0
    timed_steps: int = 0
    finished: bool = False
    ended_early: bool = False


@dataclass(frozen=True)
class ResumeState:
    """A copy of a training's state in memory."""

    step: int
    tensors: dict[str, Tensor]
    counters: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        return sum(local(tensor).numel() * tensor.element_size() for tensor in self.tensors.values())


def current_environment(device: torch.device) -> Environment:
    """The settings of this process that decide a result's bits."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "torch": torch.__version__,
        "device": name,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "MKL_CBWR": os.environ.get("MKL_CBWR", ""),
    }


def snapshot(
    engine: TrainEngine, progress: Progress, guard: AnomalyGuard, environment: Environment
) -> ResumeState:
    """Copy the training's state after this step to the CPU."""
    state = engine.snapshot()
    counters = {
        "progress": asdict(progress),
        "guard": asdict(guard),
        "optimizer": state.numbers,
        "environment": dict(environment),
    }
    return ResumeState(progress.step, state.tensors, counters)


def write_state(folder: Path, state: ResumeState, parallel: ParallelContext = SINGLE) -> None:
    """Write `state` into `folder`, then delete all but the newest states; with several ranks, all of them call this.

    Raises GroundupError when the disk is full or fails; the states already in the folder do not change then.
    """
    final = folder / f"step-{state.step:09d}"
    part = parallel.broadcast_object(lambda: temp_path(final))
    with explain_os_errors(f"the training state of step {state.step}", folder, state.size):
        try:
            if parallel.is_rank0:
                part.mkdir(parents=True, exist_ok=True)
            if parallel.mesh is None:
                save_file(state.tensors, part / SINGLE_FILE)
            else:
                save_sharded(state.tensors, part, parallel)
            numbers = parallel.gather_dicts(state.counters["optimizer"])
            if parallel.is_rank0:
                counters = json.dumps(state.counters | {"optimizer": numbers})
                (part / COUNTERS).write_text(counters, encoding="utf-8")
                (part / MANIFEST).write_bytes(_manifest(part))
                publish_dir(part, final)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    for old in _states(folder)[KEPT:] if parallel.is_rank0 else ():
        remove(old)


def load_state(
    folder: Path,
    engine: TrainEngine,
    environment: Environment,
    info: Callable[[str], None],
    parallel: ParallelContext = SINGLE,
) -> tuple[Progress, AnomalyGuard]:
    """Load the newest undamaged state into `engine`; new counters where there is none.

    A state can be of any number of ranks. info: receives a message for each damaged state, and where the state was
    written in another environment.
    """
    state = parallel.broadcast_object(lambda: _newest(folder, info))
    if state is None:
        return Progress(), AnomalyGuard()
    counters = json.loads((state / COUNTERS).read_text(encoding="utf-8"))
    engine.load(state, counters["optimizer"])
    _report_differences(counters["environment"], environment, info)
    return Progress(**counters["progress"]), AnomalyGuard(**counters["guard"])


def _newest(folder: Path, info: Callable[[str], None]) -> Path | None:
    """The newest undamaged state. Deletes damaged states and the rests of interrupted writes."""
    for rest in (path for path in folder.glob("step-*") if path.suffix):
        shutil.rmtree(rest, ignore_errors=True)
    for state in _states(folder):
        problem = _damage(state)
        if problem is None:
            return state
        info(f"resume state {state.name} is damaged ({problem}); using the one before")
        remove(state)
    return None


def _manifest(state: Path) -> bytes:
    files = sorted(path for path in state.iterdir() if path.name != MANIFEST)
    return (json.dumps({path.name: file_entry(path) for path in files}, indent=1) + "\n").encode()


def _damage(state: Path) -> str | None:
    """The first difference between a state's files and its manifest, or None."""
    try:
        listed = (state / MANIFEST).read_bytes()
        if listed == _manifest(state):
            return None
        return (
            first_mismatch(state, json.loads(listed)) or f"{MANIFEST} does not list the files of this folder"
        )
    except (FileNotFoundError, ValueError, AttributeError, KeyError, TypeError):
        return f"{MANIFEST} is missing or unreadable"


def _states(folder: Path) -> list[Path]:
    """Published states, newest first."""
    return sorted((path for path in folder.glob("step-*") if not path.suffix), reverse=True)


def _report_differences(before: Environment, now: Environment, info: Callable[[str], None]) -> None:
    differences = [
        f"{name} {before.get(name)} (now {now.get(name)})"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if differences:
        info(f"the state was written with {', '.join(differences)}: results will not be bit-identical")
