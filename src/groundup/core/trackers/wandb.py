"""Weights & Biases. Offline unless `WANDB_MODE=online` is set: nothing is uploaded by default.

An offline run is in `workspace/trackers/wandb/<run>`; `wandb sync <folder>` uploads it. The
project is `WANDB_PROJECT`, or `groundup`.
"""

import os
import shutil
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from groundup.core.trackers import Point, Run

ANSWER_SECONDS = 20.0
"""Seconds that wandb may wait for a key or for its server; its defaults would delay the end of the process."""


class Wandb:
    """One run, whose id is its name."""

    def __init__(self, run: Run) -> None:
        self._info = run
        self._run: Any = None

    def begin(self, history: Sequence[Point]) -> None:
        """Offline: rewrite the run. Online: continue it; the server keeps its points."""
        self.close()
        wandb = import_module("wandb")
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode == "offline":
            shutil.rmtree(self._info.folder, ignore_errors=True)
        self._info.folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "groundup"),
            id=self._info.name,
            name=self._info.title,
            group=self._info.group or None,
            config=dict(self._info.config),
            dir=str(self._info.folder),
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                x_disable_stats=True,
                login_timeout=ANSWER_SECONDS,
                init_timeout=ANSWER_SECONDS,
                finish_timeout=ANSWER_SECONDS,
            ),
        )
        for point in history:
            self.log(point)

    def log(self, point: Point) -> None:
        """Log the values of one step; a resumed run skips the steps that it already has."""
        if point.step >= self._run.starting_step:
            self._run.log(point.values, step=point.step)

    def close(self) -> None:
        """Wait until the run is written or uploaded."""
        if self._run is not None:
            self._run.finish()
            self._run = None


KIND = Wandb
