"""What an interrupted training continues from.

in:  weights, optimizer state and counters at a step
out: a folder that is there whole or not at all, and whose damage is noticed; the same objects filled again

Two states are kept. A damaged newest one (its sha256 differs) is passed over for the one before.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from groundup.core.durable import publish_folder

KEPT = 2
TENSORS, COUNTERS = "state.safetensors", "state.json"


@dataclass
class Progress:
    """How far a training is. Seconds and tokens add up over interruptions."""

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    timed_seconds: float = 0.0
    timed_steps: int = 0
    finished: bool = False
    ended_early: bool = False
    saved_at: float = field(default_factory=time.monotonic)
    """when the last state was saved, or the start of this process's work; not part of the state"""


def save_state(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Keep everything of this step in `folder`, and delete all but the newest states."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    numbers: dict[str, Any] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            kind = tensors if isinstance(value, Tensor) else numbers
            kind[f"optimizer.{index}.{name}"] = value
    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    progress.saved_at = time.monotonic()
    counted = {name: value for name, value in asdict(progress).items() if name != "saved_at"}
    counters = {"progress": counted, "optimizer": numbers, "sha256": sha256(data).hexdigest()}
    final = folder / f"step-{progress.step:09d}"
    part = folder / f"{final.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    (part / TENSORS).write_bytes(data)
    (part / COUNTERS).write_text(json.dumps(counters), encoding="utf-8")
    publish_folder(part, final)
    for old in _states(folder)[KEPT:]:
        shutil.rmtree(old)


def load_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, say: Callable[[str], None]
) -> Progress:
    """Fill `model` and `optimizer` from the newest undamaged state; a fresh Progress where there is none."""
    for state in _states(folder):
        found = _read(state)
        if found is None:
            say(f"resume state {state.name} is damaged, trying the one before")
            shutil.rmtree(state)
            continue
        tensors, counters = found
        _fill(model, optimizer, tensors, counters["optimizer"])
        return Progress(**counters["progress"])
    return Progress()


def _states(folder: Path) -> list[Path]:
    """Whole states, newest first."""
    return sorted((path for path in folder.glob("step-*") if not path.suffix), reverse=True)


def _read(state: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and counters, or None where they aren't what was saved."""
    try:
        data = (state / TENSORS).read_bytes()
        counters = json.loads((state / COUNTERS).read_text(encoding="utf-8"))
        if sha256(data).hexdigest() != counters["sha256"]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return load(data), counters


def _fill(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], numbers: dict[str, Any]
) -> None:
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    model.load_state_dict(weights)
    state: dict[int, dict[str, Any]] = {}
    for name, value in (tensors | numbers).items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    # The groups come from the recipe, not from the state: only what was learnt is restored.
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
