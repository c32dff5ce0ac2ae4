"""Weights & Biases. Offline unless `WANDB_MODE=online` is set: nothing leaves the machine unasked.

An offline run lies in `workspace/trackers/wandb/<run>` and is sent later with `wandb sync <folder>`. The
project is `WANDB_PROJECT`, or `groundup`.
"""

import os
import shutil
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from groundup.core.trackers import Point, Run

ANSWER_SECONDS = 20.0
"""How long wandb may wait for a key or for its server; by itself it would hold up the end of the process."""


class Wandb:
    """One run, whose id is its name."""

    def __init__(self, run: Run) -> None:
        self._given = run
        self._run: Any = None

    def begin(self, history: Sequence[Point]) -> None:
        """Offline: write the run anew. Online: continue it; the server keeps the points it has."""
        self.close()
        wandb = import_module("wandb")
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode == "offline":
            shutil.rmtree(self._given.folder, ignore_errors=True)
        self._given.folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "groundup"),
            id=self._given.name,
            name=self._given.name,
            dir=str(self._given.folder),
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
        """Values of one step; those of steps that a resumed run has already are passed over."""
        if point.step >= self._run.starting_step:
            self._run.log(point.values, step=point.step)

    def close(self) -> None:
        """Wait until the run is written, or sent."""
        if self._run is not None:
            self._run.finish()
            self._run = None


KIND = Wandb
