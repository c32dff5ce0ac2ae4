"""Numbers over steps: `metrics.jsonl`, one JSON object a line, and an adapter for TensorBoard.

in:  values by name, with the step they belong to
out: lines that survive a crash up to the last whole one, and can be cut back to a step on resume
"""

import importlib
import json
import math
from pathlib import Path
from typing import Any

from groundup.core.durable import write_text
from groundup.core.errors import GroundupError


class MetricsLog:
    """Appends to one `metrics.jsonl`. Non-finite numbers are spelled as strings, since JSON has none."""

    def __init__(self, path: Path, tensorboard: bool = False) -> None:
        self.path = path
        self._board = _tensorboard_writer(path.parent / "tensorboard") if tensorboard else None

    def log(self, **values: Any) -> None:
        """Append one line, e.g. `log(step=3, loss=2.5)`."""
        line = json.dumps({name: _plain(value) for name, value in values.items()})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        if self._board is not None and "step" in values:
            for name, value in values.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(name, value, values["step"])

    def rewind(self, step: int) -> None:
        """Drop torn lines and those after `step`: they will be written again."""
        if self.path.exists():
            kept = [entry for entry in read_metrics(self.path) if entry.get("step", 0) <= step]
            write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in kept))

    def close(self) -> None:
        """Flush the adapter, if any."""
        if self._board is not None:
            self._board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a `metrics.jsonl`; a torn last line is left out."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _tensorboard_writer(folder: Path) -> Any:
    try:
        module = importlib.import_module("torch.utils.tensorboard")
    except ImportError:
        raise GroundupError(
            "site.tensorboard = true needs TensorBoard: pip install 'groundup[tensorboard]'"
        ) from None
    return module.SummaryWriter(str(folder))
