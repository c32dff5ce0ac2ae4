"""TensorBoard: event files that `tensorboard --logdir workspace/trackers/tensorboard` shows."""

import json
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from groundup.core.trackers import Point, Run


class TensorBoard:
    """One folder of event files."""

    def __init__(self, run: Run) -> None:
        self._run, self._folder = run, run.folder
        self._writer: Any = None

    def begin(self, history: Sequence[Point]) -> None:
        """Truncate the earlier files and write a new one; `purge_step` makes an open TensorBoard drop the old points.

        Files aren't deleted, since an open TensorBoard never recovers from the deletion of a file that it reads.
        """
        self.close()
        for earlier in self._folder.glob("events.*"):
            earlier.write_bytes(b"")
        board = import_module("torch.utils.tensorboard")
        self._writer = board.SummaryWriter(str(self._folder), purge_step=0, flush_secs=10)
        if self._run.config:
            config = json.dumps(self._run.config, indent=1, default=str)
            self._writer.add_text("run", self._run.title)
            self._writer.add_text("config", "".join(f"    {line}\n" for line in config.splitlines()))
        for point in history:
            self.log(point)

    def log(self, point: Point) -> None:
        """One scalar per value."""
        for name, value in point.values.items():
            self._writer.add_scalar(name, value, point.step)

    def close(self) -> None:
        """Flush to disk."""
        if self._writer is not None:
            self._writer.close()


KIND = TensorBoard
