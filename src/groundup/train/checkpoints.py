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
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from groundup.core.durable import (
    disk_errors_in_words,
    fsync_folder,
    part_name,
    publish_folder,
    sha256_file,
)
from groundup.parallel.checkpoint import load_sharded, save_sharded
from groundup.parallel.shard import as_share_of, local
from groundup.parallel.world import ALONE, World
from groundup.train.guard import Guard

KEPT = 2
"""States that are kept, so that one is left when the newest is damaged."""
TENSORS, COUNTERS, MANIFEST = "state.safetensors", "state.json", "manifest.json"

Conditions = Mapping[str, Any]
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
class Snapshot:
    """A state in memory, apart from what goes on changing."""

    step: int
    tensors: dict[str, Tensor]
    counters: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        return sum(local(tensor).numel() * tensor.element_size() for tensor in self.tensors.values())


def conditions(device: torch.device) -> Conditions:
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
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    guard: Guard,
    made_under: Conditions,
) -> Snapshot:
    """Copy everything of this step to the CPU."""
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    learnt, numbers = optimizer_state(model, optimizer)
    tensors = weights | {f"optimizer.{name}": tensor for name, tensor in learnt.items()}
    copies = {name: _copy(tensor) for name, tensor in tensors.items()}
    counters = {
        "progress": asdict(progress),
        "guard": asdict(guard),
        "optimizer": numbers,
        "conditions": dict(made_under),
    }
    return Snapshot(progress.step, copies, counters)


def write_state(folder: Path, state: Snapshot, world: World = ALONE) -> None:
    """Keep `state` in `folder`, then delete all but the newest ones; with several ranks, all of them call this.

    Raises GroundupError when the disk is full or fails; what lay in the folder is as it was then.
    """
    final = folder / f"step-{state.step:09d}"
    part = world.told_by_leader(lambda: part_name(final))
    with disk_errors_in_words(f"the training state of step {state.step}", folder, state.size):
        try:
            if world.leads:
                part.mkdir(parents=True, exist_ok=True)
            if world.mesh is None:
                _save_tensors(state.tensors, part / TENSORS)
            else:
                save_sharded(state.tensors, part, world)
            if world.leads:
                (part / COUNTERS).write_text(json.dumps(state.counters), encoding="utf-8")
                (part / MANIFEST).write_bytes(_manifest(part))
                publish_folder(part, final)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    for old in _states(folder)[KEPT:] if world.leads else ():
        _discard(old)


def load_state(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    now: Conditions,
    say: Callable[[str], None],
    world: World = ALONE,
) -> tuple[Progress, Guard]:
    """Fill `model` and `optimizer` from the newest undamaged state; fresh counters where there is none.

    A state may be of any number of ranks. Says which states are damaged, and where the state was made under other
    conditions than `now`.
    """
    state = world.told_by_leader(lambda: _newest(folder, say))
    if state is None:
        return Progress(), Guard()
    counters = json.loads((state / COUNTERS).read_text(encoding="utf-8"))
    if world.mesh is None and (state / TENSORS).exists():
        tensors = load_file(state / TENSORS)
    else:
        named = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        learnt = {f"optimizer.{name}.": parameter for name, parameter in model.named_parameters()}
        tensors = load_sharded(state, named, learnt, world)
    _fill(model, optimizer, tensors, counters["optimizer"])
    _say_what_differs(counters["conditions"], now, say)
    return Progress(**counters["progress"]), Guard(**counters["guard"])


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


def optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What an optimizer of `model` has learnt: tensors, and plain numbers, by "<parameter>.<name>"."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            kind = tensors if isinstance(value, Tensor) else numbers
            kind[f"{names[parameter]}.{key}"] = value
    return tensors, numbers


def fill_optimizer(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: dict[str, Tensor],
    numbers: dict[str, Any],
) -> None:
    """The inverse of `optimizer_state`. Rates and groups stay: they come from the recipe, not from the state."""
    state: dict[int, dict[str, Any]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    index = {parameter: number for number, parameter in enumerate(parameters)}
    named = dict(model.named_parameters())
    for name, value in (tensors | numbers).items():
        about, _, key = name.rpartition(".")
        state.setdefault(index[named[about]], {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _copy(tensor: Tensor) -> Tensor:
    mine = local(tensor.detach())
    return as_share_of(tensor, torch.empty(mine.shape, dtype=mine.dtype).copy_(mine))


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
    fsync_folder(state.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _fill(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], numbers: dict[str, Any]
) -> None:
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        parts[kind][rest] = tensor
    model.load_state_dict(parts["model"])
    fill_optimizer(model, optimizer, parts["optimizer"], numbers)


def _say_what_differs(before: Conditions, now: Conditions, say: Callable[[str], None]) -> None:
    differing = [
        f"{name} {before.get(name)} (now {now.get(name)})"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if differing:
        say(f"the state was made with {', '.join(differing)}: results will not be bit-identical")
