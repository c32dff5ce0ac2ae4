"""The engine of this project: PyTorch's own distribution, applied to the decoder axis by axis (see `spread.py`).

in:  a Job
out: NativeLearner; on one rank a plain model and a plain optimizer
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from groundup.core.recipe import Recipe
from groundup.parallel.context import SINGLE, ParallelContext
from groundup.parallel.engine import EngineSpec, EngineState, Loss
from groundup.parallel.hardware import fit
from groundup.parallel.optimizer_state import fill_optimizer, optimizer_state
from groundup.parallel.parallelize import parallelize
from groundup.parallel.pipeline_parallel import Pipeline
from groundup.parallel.reduce_metrics import add_up, read_numbers
from groundup.parallel.shard import (
    as_share_of,
    clip_gradients,
    finish_gradients,
    gradient_norm,
    local,
    sync_gradients,
)
from groundup.parallel.sharded_checkpoint import WHOLE, load_sharded

Backward = Callable[[Sequence[Any]], dict[str, Any]]
"""micro-batches -> the sums of their figures on this rank; gradients are added to the parameters'"""


class Native(Recipe):
    """FSDP2, tensor, pipeline, context and expert parallel as `runtime.layout` says; one device as it is."""

    def prepare(self, job: EngineSpec) -> "NativeEngine":
        """Spread the model, then make its optimizer: of every rank's own parameters."""
        fit(job.model, job.hardware)
        stages = parallelize(job.model, job.world, job.hardware, job.layout.schedule, job.first)
        optimizer = job.build(job.model.named_parameters())
        pipeline = Pipeline(stages, job.layout.schedule, job.loss, job.world) if stages else None
        return NativeEngine(job.model, optimizer, job.loss, job.grad_clip, job.world, pipeline)


@dataclass
class NativeEngine:
    """A model whose parameters this process holds, whole or as its share."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    grad_clip: float = 0.0
    world: ParallelContext = SINGLE
    pipeline: Pipeline | None = None
    """what differentiates where this rank has a part of the layers"""
    _rates: list[float] = field(init=False)
    _norm: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._rates = [group["lr"] for group in self.optimizer.param_groups]

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next(self.model.parameters()).device

    def forward_backward(self, micro_batches: Sequence[Any]) -> dict[str, float]:
        """See `Learner`. The figures stay on the device until all backward passes are queued."""
        self.zero_grad()
        if self.pipeline is None:
            totals = accumulate(self.model, self.loss, micro_batches)
        else:
            totals = self.pipeline.backward(micro_batches)
        finish_gradients(self.model, self.world)
        self._norm = gradient_norm(self._counted(), self.world)
        return read_numbers({"grad_norm": self._norm} | totals, self.world, alike=1)

    def step(self, factor: float) -> None:
        """See `Learner`."""
        if self.grad_clip:
            clip_gradients(self._learning(), self.grad_clip, self._norm)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()

    def zero_grad(self) -> None:
        """See `Learner`."""
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def eval_loss(self, batch: Any) -> Tensor:
        """See `Learner`."""
        return self.loss(self.model, batch)[0] if self.pipeline is None else self.pipeline.eval_loss(batch)

    def snapshot(self) -> EngineState:
        """See `Learner`."""
        weights = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        learnt, numbers = optimizer_state(self.model, self.optimizer)
        tensors = weights | {f"optimizer.{name}": tensor for name, tensor in learnt.items()}
        return EngineState({name: _copy(tensor) for name, tensor in tensors.items()}, numbers)

    def load(self, folder: Path, numbers: dict[str, Any], weights: bool = True) -> None:
        """See `Learner`."""
        mine = dict(self.model.named_parameters())
        if self.world.mesh is None and (folder / WHOLE).exists():
            tensors = load_file(folder / WHOLE)
        else:
            named = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
            learnt = {f"optimizer.{name}.": parameter for name, parameter in mine.items()}
            tensors = load_sharded(folder, named if weights else {}, learnt, self.world)
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = tensor
        if weights:
            self.model.load_state_dict(parts["model"])
        # Numbers are those of all stages of a pipeline.
        own = {name: number for name, number in numbers.items() if name.rpartition(".")[0] in mine}
        fill_optimizer(self.model, self.optimizer, parts["optimizer"], own)

    def _counted(self) -> list[nn.Parameter]:
        """What the norm is taken of: no parameter twice."""
        twice = None if self.pipeline is None else self.pipeline.twin
        return [parameter for parameter in self._learning() if parameter is not twice]

    def _learning(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.grad is not None]


def accumulate(model: nn.Module, loss: Loss, micro_batches: Sequence[Any]) -> dict[str, Any]:
    """Differentiate one micro-batch after the other; gradients are added up over the ranks with the last one."""
    totals: dict[str, Any] = {}
    last = len(micro_batches) - 1
    for index, batch in enumerate(micro_batches):
        sync_gradients(model, now=index == last)
        value, figures = loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        add_up(totals, {"loss": value, **figures})
    return totals


def _copy(tensor: Tensor) -> Tensor:
    mine = local(tensor.detach())
    return as_share_of(tensor, torch.empty(mine.shape, dtype=mine.dtype).copy_(mine))
