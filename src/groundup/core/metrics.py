"""Numbers over steps: `metrics.jsonl`, one JSON object a line, and its copies in trackers.

in:  values by name, with the step they belong to
out: lines that survive a crash up to the last whole one, and can be cut back to a step on resume
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
    """Appends to one `metrics.jsonl`. Non-finite numbers are spelled as strings, since JSON has none."""

    def __init__(self, path: Path, trackers: Sequence[Background] = ()) -> None:
        self.path = path
        self._trackers = trackers
        self._begun = False

    def log(self, **values: Any) -> dict[str, Any]:
        """Append one line, e.g. `log(step=3, loss=2.5)`; returns it as it was written."""
        if self._trackers and not self._begun:
            self._begin(read_metrics(self.path))
        plain = {name: _plain(value) for name, value in values.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain) + "\n")
        for point in points([plain]):
            for tracker in self._trackers:
                tracker.log(point)
        return plain

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Drop torn lines and those after `step`: they will be written again. Returns what is left."""
        kept = [entry for entry in read_metrics(self.path) if entry.get("step", 0) <= step]
        if self.path.exists():
            write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in kept))
        self._begin(kept)
        return kept

    def close(self) -> None:
        """Let the trackers write what is left."""
        for tracker in self._trackers:
            tracker.close()

    def _begin(self, lines: list[dict[str, Any]]) -> None:
        self._begun = True
        for tracker in self._trackers:
            tracker.begin(points(lines))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a `metrics.jsonl`; a torn last line is left out."""
    if not path.exists():
        return []
    return [entry for entry in read_jsonl(path, skip_invalid=True) if isinstance(entry, dict)]


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
