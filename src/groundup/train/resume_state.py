"""What an interrupted training continues from: one folder per state.

in:  weights, optimizer state, counters and what the guard remembers, at a step
out: step-<n>/{state.safetensors, state.json, manifest.json}, there whole or not at all; the same objects filled again

The manifest holds the SHA-256 of every other file and is made anew when a state is read: one flipped byte anywhere,
in the manifest itself too, and the two differ. A damaged state is passed over for the one before.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from groundup.core.atomic_io import (
    explain_disk_errors,
    fsync_dir,
    publish_dir,
    sha256_file,
    temp_path,
)
from groundup.parallel.context import SINGLE, ParallelContext
from groundup.parallel.engine import TrainEngine
from groundup.parallel.shard import local
from groundup.parallel.sharded_checkpoint import SINGLE_FILE, save_sharded
from groundup.train.anomaly import AnomalyGuard

KEPT = 2
"""States that are kept, so that one is left when the newest is damaged."""
COUNTERS, MANIFEST = "state.json", "manifest.json"

Environment = Mapping[str, Any]
"""What the bits of a result depend on beside the recipe, e.g. {"threads": 2}; plain JSON."""


@dataclass
class Progress:
    """How far a training is. Seconds and steps add up over interruptions."""

    step: int = 0
    seconds: float = 0.0
    timed_seconds: float = 0.0
    timed_steps: int = 0
    finished: bool = False
    ended_early: bool = False


@dataclass(frozen=True)
class ResumeState:
    """A state in memory, apart from what goes on changing."""

    step: int
    tensors: dict[str, Tensor]
    counters: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        return sum(local(tensor).numel() * tensor.element_size() for tensor in self.tensors.values())


def current_environment(device: torch.device) -> Environment:
    """Those that every training has."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "torch": torch.__version__,
        "device": name,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "MKL_CBWR": os.environ.get("MKL_CBWR", ""),
    }


def snapshot(
    learner: TrainEngine, progress: Progress, guard: AnomalyGuard, environment: Environment
) -> ResumeState:
    """Copy everything of this step to the CPU."""
    state = learner.snapshot()
    counters = {
        "progress": asdict(progress),
        "guard": asdict(guard),
        "optimizer": state.numbers,
        "conditions": dict(environment),
    }
    return ResumeState(progress.step, state.tensors, counters)


def write_state(folder: Path, state: ResumeState, world: ParallelContext = SINGLE) -> None:
    """Keep `state` in `folder`, then delete all but the newest ones; with several ranks, all of them call this.

    Raises GroundupError when the disk is full or fails; what lay in the folder is as it was then.
    """
    final = folder / f"step-{state.step:09d}"
    part = world.broadcast_object(lambda: temp_path(final))
    with explain_disk_errors(f"the training state of step {state.step}", folder, state.size):
        try:
            if world.is_rank0:
                part.mkdir(parents=True, exist_ok=True)
            if world.mesh is None:
                _save_tensors(state.tensors, part / SINGLE_FILE)
            else:
                save_sharded(state.tensors, part, world)
            numbers = world.gather_dicts(state.counters["optimizer"])
            if world.is_rank0:
                counters = json.dumps(state.counters | {"optimizer": numbers})
                (part / COUNTERS).write_text(counters, encoding="utf-8")
                (part / MANIFEST).write_bytes(_manifest(part))
                publish_dir(part, final)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    for old in _states(folder)[KEPT:] if world.is_rank0 else ():
        _discard(old)


def load_state(
    folder: Path,
    learner: TrainEngine,
    now: Environment,
    say: Callable[[str], None],
    world: ParallelContext = SINGLE,
) -> tuple[Progress, AnomalyGuard]:
    """Fill `learner` from the newest undamaged state; fresh counters where there is none.

    A state may be of any number of ranks. Says which states are damaged, and where the state was made under other
    conditions than `now`.
    """
    state = world.broadcast_object(lambda: _newest(folder, say))
    if state is None:
        return Progress(), AnomalyGuard()
    counters = json.loads((state / COUNTERS).read_text(encoding="utf-8"))
    learner.load(state, counters["optimizer"])
    _say_what_differs(counters["conditions"], now, say)
    return Progress(**counters["progress"]), AnomalyGuard(**counters["guard"])


def _newest(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest undamaged state; what was left half-done or is damaged is gone then."""
    for left in (*folder.glob("step-*.part"), *folder.glob("step-*.old")):
        shutil.rmtree(left, ignore_errors=True)
    for state in _states(folder):
        problem = _damage(state)
        if problem is None:
            return state
        say(f"resume state {state.name} is damaged, trying the one before: {problem}")
        _discard(state)
    return None


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Raises OSError, as any writing does: safetensors gives the system's error number in words only."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), str(error), str(path)) from None


def _manifest(state: Path) -> bytes:
    files = sorted(path for path in state.iterdir() if path.name != MANIFEST)
    return (json.dumps({path.name: sha256_file(path) for path in files}, indent=1) + "\n").encode()


def _damage(state: Path) -> str | None:
    """Which file of a state isn't as it was written; None where all are."""
    try:
        said, found = (state / MANIFEST).read_bytes(), _manifest(state)
        if said == found:
            return None
        before, now = json.loads(said), json.loads(found)
        differing = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    except (OSError, ValueError, AttributeError):
        return f"{MANIFEST} is missing or unreadable"
    if not differing:
        return f"{MANIFEST} is not as it was written"
    return f"{differing[0]} " + ("does not match its checksum" if differing[0] in now else "is missing")


def _states(folder: Path) -> list[Path]:
    """Published states, newest first."""
    return sorted((path for path in folder.glob("step-*") if not path.suffix), reverse=True)


def _discard(state: Path) -> None:
    """Take a state out of sight, then delete it: a kill in between leaves no half of it."""
    aside = state.with_name(state.name + ".old")
    shutil.rmtree(aside, ignore_errors=True)
    state.rename(aside)
    fsync_dir(state.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _say_what_differs(before: Environment, now: Environment, say: Callable[[str], None]) -> None:
    differing = [
        f"{name} {before.get(name)} (now {now.get(name)})"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if differing:
        say(f"the state was made with {', '.join(differing)}: results will not be bit-identical")
