"""One optimizer step: micro-batches -> gradient -> weights.

in:  the micro-batches of a step
out: weights moved, or left alone where the guard finds a fault; the step's figures

The figures stay on the device until all backward passes are queued; then one small transfer brings them over.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.parallel.shard import clip_gradients, finish_gradients, gradient_norm, sync_gradients
from groundup.parallel.world import ALONE, World
from groundup.train.guard import Guard
from groundup.train.watch import Watch

Batch = TypeVar("Batch")
Loss = Callable[[Any, Batch], tuple[Tensor, dict[str, Tensor | float]]]


@dataclass(frozen=True)
class Outcome:
    """What became of a step. `fault`: what was wrong with it, also where a second computation was right."""

    values: dict[str, float]
    skipped: bool
    fault: str | None


@dataclass(frozen=True)
class Stepper(Generic[Batch]):
    """Takes steps. `spikes`: a figure far above the recent ones is a fault, not only one that isn't finite."""

    model: nn.Module
    loss: Loss[Batch]
    optimizer: torch.optim.Optimizer
    grad_clip: float
    guard: Guard
    spikes: bool
    watch: Watch | None = None
    world: World = ALONE

    def take(self, step: int, micro_batches: Sequence[Batch]) -> Outcome:
        """A faulty step is computed once more from the same weights; faulty again, it is skipped.

        Weights and optimizer state are never touched by a faulty gradient.
        """
        values, norm = self._gradient(micro_batches)
        first = fault = self._fault(values)
        if fault is not None:
            values, norm = self._gradient(micro_batches)
            fault = self._fault(values)
        if fault is None:
            values |= self._update(step, norm)
            self.guard.took(values["loss"], values["grad_norm"], transient=first is not None)
        else:
            self.guard.skip()
        self.optimizer.zero_grad(set_to_none=True)
        return Outcome(values, skipped=fault is not None, fault=fault or first)

    def _gradient(self, micro_batches: Sequence[Batch]) -> tuple[dict[str, float], Float[Tensor, ""]]:
        """The step's figures, and the norm of its gradient; the gradient itself lies in the parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, Any] = {}
        last = len(micro_batches) - 1
        for index, batch in enumerate(micro_batches):
            sync_gradients(self.model, now=index == last)
            value, metrics = self.loss(self.model, batch)
            value.backward()  # type: ignore[no-untyped-call]
            for name, part in ({"loss": value} | metrics).items():
                detached = part.detach() if isinstance(part, Tensor) else part
                totals[name] = totals[name] + detached if name in totals else detached
        finish_gradients(self.model, self.world)
        norm = gradient_norm(self._learning(), self.world)
        return read_numbers({"grad_norm": norm} | totals, self.world, alike=1), norm

    def _fault(self, values: dict[str, float]) -> str | None:
        return self.guard.fault(values["loss"], values["grad_norm"], self.spikes)

    def _update(self, step: int, norm: Float[Tensor, ""]) -> dict[str, float]:
        """Move the weights; returns what the watch saw."""
        if self.grad_clip:
            clip_gradients(self._learning(), self.grad_clip, norm)
        if self.watch is not None:
            self.watch.before_step(step + 1)
        self.optimizer.step()
        return {} if self.watch is None else read_numbers(self.watch.after_step(step + 1))

    def _learning(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.grad is not None]


def read_numbers(values: dict[str, Tensor | float], world: World = ALONE, alike: int = 0) -> dict[str, float]:
    """Scalars as Python's numbers, all tensors with one transfer from the device.

    They are added up over the world's ranks, but for the first `alike`, which are the same on all of them.
    """
    if world.size > 1:
        values = {name: torch.as_tensor(value) for name, value in values.items()}
    tensors = {name: value.detach() for name, value in values.items() if isinstance(value, Tensor)}
    if not tensors:
        return {name: float(value) for name, value in values.items()}
    device = next(reversed(tensors.values())).device
    stacked = torch.stack(
        [value.reshape(()).to(device, torch.float64, non_blocking=True) for value in tensors.values()]
    )
    world.sum(stacked[alike:])
    read = dict(zip(tensors, stacked.tolist(), strict=True))
    return {name: float(read.get(name, value)) for name, value in values.items()}
