"""Metrics log: `metrics.jsonl`, one JSON object per line, copied to the trackers.

in:  values by name, with their step
out: lines that survive a crash up to the last complete one, and are truncated to a step on resume
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundup.core.atomic_io import write_text
from groundup.core.jsonl import read_jsonl
from groundup.core.trackers import Background, points


class MetricsLog:
    """Appends to one `metrics.jsonl`. Non-finite numbers are written as strings, since JSON has none."""

    def __init__(self, path: Path, trackers: Sequence[Background] = ()) -> None:
        self.path = path
        self._trackers = trackers
        self._started = False

    def log(self, **values: Any) -> dict[str, Any]:
        """Append one line, e.g. `log(step=3, loss=2.5)`; returns the line as written."""
        if self._trackers and not self._started:
            self._start(read_metrics(self.path))
        plain = {name: _plain(value) for name, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain) + "\n")
        for point in points([plain]):
            for tracker in self._trackers:
                tracker.log(point)
        return plain

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Delete incomplete lines and those after `step`, which are written again. Returns the remaining lines."""
        kept = [entry for entry in read_metrics(self.path) if entry.get("step", 0) <= step]
        if self.path.exists():
            write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in kept))
        self._start(kept)
        return kept

    def close(self) -> None:
        """Close the trackers."""
        for tracker in self._trackers:
            tracker.close()

    def _start(self, lines: list[dict[str, Any]]) -> None:
        self._started = True
        for tracker in self._trackers:
            tracker.begin(points(lines))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All complete lines of a `metrics.jsonl`; an incomplete last line is skipped."""
    if not path.exists():
        return []
    return [entry for entry in read_jsonl(path, skip_invalid=True) if isinstance(entry, dict)]


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
