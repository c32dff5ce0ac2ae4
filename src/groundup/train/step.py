"""One optimizer step: micro-batches -> gradient -> weights.

in:  the micro-batches of a step, and a learner, which computes the gradient and moves the weights
out: weights moved, or left alone where the guard finds a fault; the step's figures
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from groundup.parallel.engine import TrainEngine
from groundup.parallel.reduce_metrics import read_numbers
from groundup.train.anomaly import AnomalyGuard
from groundup.train.monitor import Monitor


@dataclass(frozen=True)
class StepResult:
    """What became of a step. `fault`: what was wrong with it, also where a second computation was right."""

    values: dict[str, float]
    skipped: bool
    fault: str | None


@dataclass(frozen=True)
class Stepper:
    """Takes steps. `spikes`: a figure far above the recent ones is a fault, not only one that isn't finite."""

    learner: TrainEngine
    guard: AnomalyGuard
    spikes: bool
    watch: Monitor | None = None

    def train_step(self, step: int, micro_batches: Sequence[Any], factor: float = 1.0) -> StepResult:
        """A faulty step is computed once more from the same weights; faulty again, it is skipped.

        factor: on all rates. Weights and optimizer state are never touched by a faulty gradient.
        """
        values = self.learner.forward_backward(micro_batches)
        first = fault = self._fault(values)
        if fault is not None:
            values = self.learner.forward_backward(micro_batches)
            fault = self._fault(values)
        if fault is None:
            values |= self._update(step, factor)
            self.guard.took(values["loss"], values["grad_norm"], transient=first is not None)
        else:
            self.guard.skip()
        self.learner.zero_grad()
        return StepResult(values, skipped=fault is not None, fault=fault or first)

    def _fault(self, values: dict[str, float]) -> str | None:
        return self.guard.fault(values["loss"], values["grad_norm"], self.spikes)

    def _update(self, step: int, factor: float) -> dict[str, float]:
        """Move the weights; returns what the watch saw."""
        if self.watch is not None:
            self.watch.before_step(step + 1)
        self.learner.step(factor)
        return {} if self.watch is None else read_numbers(self.watch.after_step(step + 1))
