"""One optimizer step: micro-batches -> gradient -> weights.

in:  the micro-batches of a step, an engine
out: updated weights, or unchanged weights where the step is faulty; the step's metrics
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from groundup.parallel.engine import TrainEngine
from groundup.parallel.reduce_metrics import reduce_to_floats
from groundup.train.anomaly import AnomalyGuard
from groundup.train.monitor import Monitor


@dataclass(frozen=True)
class StepResult:
    """A step's metrics. `fault`: the fault of the first computation, even if the recomputation was applied."""

    values: dict[str, float]
    skipped: bool
    fault: str | None


@dataclass(frozen=True)
class Stepper:
    """Takes optimizer steps. `detect_spikes`: outliers are faults too, not only values that aren't finite."""

    engine: TrainEngine
    guard: AnomalyGuard
    detect_spikes: bool
    monitor: Monitor | None = None

    def train_step(self, step: int, micro_batches: Sequence[Any], factor: float = 1.0) -> StepResult:
        """Take one step; a faulty one is recomputed from the same weights, and skipped if it is faulty again.

        factor: multiplies all learning rates. A faulty gradient never changes weights or optimizer state.
        """
        values = self.engine.forward_backward(micro_batches)
        first = fault = self._fault(values)
        if fault is not None:
            values = self.engine.forward_backward(micro_batches)
            fault = self._fault(values)
        if fault is None:
            values |= self._apply(step, factor)
            self.guard.note_applied(values["loss"], values["grad_norm"], transient=first is not None)
        else:
            self.guard.note_skipped()
        self.engine.zero_grad()
        return StepResult(values, skipped=fault is not None, fault=fault or first)

    def _fault(self, values: dict[str, float]) -> str | None:
        return self.guard.fault(values["loss"], values["grad_norm"], self.detect_spikes)

    def _apply(self, step: int, factor: float) -> dict[str, float]:
        """Update the weights; returns the monitor's values."""
        if self.monitor is not None:
            self.monitor.before_step(step + 1)
        self.engine.step(factor)
        return {} if self.monitor is None else reduce_to_floats(self.monitor.after_step(step + 1))
