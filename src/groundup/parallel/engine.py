"""What the training loop trains: a model and its optimizer on all ranks, behind one protocol.

in:  a decoder, a function that builds the optimizer, a loss, the ranks (`EngineSpec`)
out: TrainEngine: forward and backward passes, optimizer steps, snapshots and loading, the same for every backend

The training loop, the batches, anomaly handling and the checkpoints are the same for all engines (`engines/`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from groundup.core.errors import GroundupError
from groundup.core.runtime import Layout
from groundup.model.decoder import Decoder
from groundup.parallel.context import ParallelContext
from groundup.parallel.hardware import Hardware
from groundup.parallel.reduce_metrics import StepMetrics
from groundup.parallel.shard import InitTensor

Loss = Callable[[Any, Any], tuple[Tensor, StepMetrics]]
"""(model, micro-batch) -> (loss to differentiate, other metrics); a step's are the sums over its micro-batches"""
BuildOptimizer = Callable[[Iterable[tuple[str, nn.Parameter]]], torch.optim.Optimizer]
"""named parameters -> their optimizer"""


@dataclass(frozen=True)
class EngineState:
    """An engine's weights and optimizer state in a form that every engine loads; on every rank its shard."""

    tensors: dict[str, Tensor]
    """copies on the CPU: "model.<parameter>", "optimizer.<parameter>.<name>"; a DTensor where it is sharded"""
    numbers: dict[str, Any]
    """plain numbers of the optimizer, by "<parameter>.<name>" """


@dataclass(frozen=True)
class EngineSpec:
    """Everything that an engine needs to train a model."""

    model: nn.Module
    """a decoder, a value model, or a module whose children are such (see `model_roots`); on the meta device, or with
    its initial weights where every rank has room for them"""
    init_tensor: InitTensor
    hardware: Hardware
    parallel: ParallelContext
    layout: Layout
    build_optimizer: BuildOptimizer
    loss: Loss
    grad_clip: float
    """largest global norm; 0 = not clipped"""

    @property
    def decoder(self) -> Decoder:
        """The model, for an engine that supports decoders only. Raises GroundupError for another model."""
        if not isinstance(self.model, Decoder):
            raise GroundupError(
                'runtime.engine: this engine trains decoders only. Use runtime.engine.use = "native"'
            )
        return self.model


class TrainEngine(Protocol):
    """A model and its optimizer on this rank and the others; all ranks make the same calls."""

    @property
    def device(self) -> torch.device:
        """Device that batches must be on."""
        ...

    def forward_backward(self, micro_batches: Sequence[Any]) -> dict[str, float]:
        """Run a step's micro-batches; keeps the gradient. Returns loss, grad_norm, ..., equal on all ranks."""
        ...

    def step(self, factor: float) -> None:
        """Clip the gradient and update the weights with `factor` times the recipe's learning rates."""
        ...

    def zero_grad(self) -> None:
        """Discard the gradient."""
        ...

    def eval_loss(self, batch: Any) -> Tensor:
        """This rank's part of a batch's loss, without gradients, fp32."""
        ...

    def whole_weights(self) -> dict[str, Tensor]:
        """All weights by name, whole, on every rank; for models of which a rank can hold a copy."""
        ...

    def snapshot(self) -> EngineState:
        """Copy weights and optimizer state to the CPU."""
        ...

    def load(self, folder: Path, numbers: dict[str, Any], weights: bool = True) -> None:
        """Load optimizer state and, if `weights`, weights from `folder`, saved by any engine on any number of ranks."""
        ...
