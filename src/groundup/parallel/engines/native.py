"""Native engine: PyTorch's own distribution, applied to the decoder axis by axis (see `parallelize.py`).

in:  EngineSpec
out: NativeEngine; on one rank a plain model and a plain optimizer
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from groundup.core.recipe import Recipe
from groundup.model.value_head import model_roots
from groundup.parallel.context import SINGLE, ParallelContext
from groundup.parallel.engine import EngineSpec, EngineState, Loss
from groundup.parallel.gradient_clipping import clip_gradients, gradient_norm, sum_replicated_gradients
from groundup.parallel.hardware import prepare_model
from groundup.parallel.held_weights import HeldWeights
from groundup.parallel.optimizer_state import load_optimizer_state, optimizer_state
from groundup.parallel.parallelize import parallelize
from groundup.parallel.pipeline_parallel import Pipeline
from groundup.parallel.reduce_metrics import accumulate_metrics, reduce_to_floats
from groundup.parallel.shard import as_dtensor_like, local, sync_gradients
from groundup.parallel.sharded_checkpoint import SINGLE_FILE, load_sharded

Backward = Callable[[Sequence[Any]], dict[str, Any]]
"""micro-batches -> the sums of their metrics on this rank; adds gradients to the parameters"""


class Native(Recipe):
    """PyTorch FSDP2 with tensor, pipeline, context and expert parallel, as set in `runtime.layout`."""

    def prepare(self, setup: EngineSpec) -> "NativeEngine":
        """Parallelize the model, then build the optimizer of this rank's parameters."""
        for root in model_roots(setup.model):
            prepare_model(root, setup.hardware)
        stages = parallelize(
            setup.model, setup.parallel, setup.hardware, setup.layout.schedule, setup.init_tensor
        )
        optimizer = setup.build_optimizer(setup.model.named_parameters())
        pipeline = Pipeline(stages, setup.layout.schedule, setup.loss, setup.parallel) if stages else None
        return NativeEngine(setup.model, optimizer, setup.loss, setup.grad_clip, setup.parallel, pipeline)


@dataclass
class NativeEngine:
    """A model of which this process holds all parameters or its shard."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    grad_clip: float = 0.0
    parallel: ParallelContext = SINGLE
    pipeline: Pipeline | None = None
    """runs the micro-batches where this rank has a part of the layers"""
    _peak_rates: list[float] = field(init=False)
    _norm: Tensor = field(init=False)
    _held: HeldWeights = field(init=False)

    def __post_init__(self) -> None:
        self._held = HeldWeights.of(self.model)
        self._peak_rates = [group["lr"] for group in self.optimizer.param_groups]

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return next(self.model.parameters()).device

    def forward_backward(self, micro_batches: Sequence[Any]) -> dict[str, float]:
        """See `TrainEngine`. Metrics stay on the device until all backward passes are queued."""
        self.zero_grad()
        if self.pipeline is None:
            totals = accumulate(self.model, self.loss, micro_batches)
        else:
            totals = self.pipeline.backward(micro_batches)
        sum_replicated_gradients(self.model, self.parallel)
        self._held.zero_gradients()
        self._norm = gradient_norm(self._unique_parameters(), self.parallel)
        return reduce_to_floats({"grad_norm": self._norm} | totals, self.parallel, identical=1)

    def step(self, factor: float) -> None:
        """See `TrainEngine`."""
        if self.grad_clip:
            clip_gradients(self._with_gradient(), self.grad_clip, self._norm)
        for group, rate in zip(self.optimizer.param_groups, self._peak_rates, strict=True):
            group["lr"] = rate * factor
        self._held.step(self.optimizer)

    def zero_grad(self) -> None:
        """See `TrainEngine`."""
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def eval_loss(self, batch: Any) -> Tensor:
        """See `TrainEngine`."""
        return self.loss(self.model, batch)[0] if self.pipeline is None else self.pipeline.eval_loss(batch)

    @property
    def holds_whole_model(self) -> bool:
        """Whether `model` has all weights on this rank."""
        return self.parallel.mesh is None

    def whole_weights(self) -> dict[str, Tensor]:
        """See `TrainEngine`. Without a pipeline, whose ranks hold different layers."""
        assert self.pipeline is None, "a pipeline's ranks hold different layers"
        return {
            name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            for name, tensor in self.model.state_dict().items()
        }

    def snapshot(self) -> EngineState:
        """See `TrainEngine`."""
        weights = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        state, numbers = optimizer_state(self.model, self.optimizer)
        tensors = weights | {f"optimizer.{name}": tensor for name, tensor in state.items()}
        return EngineState({name: _copy_to_cpu(tensor) for name, tensor in tensors.items()}, numbers)

    def load(self, folder: Path, numbers: dict[str, Any], weights: bool = True) -> None:
        """See `TrainEngine`."""
        parameters = dict(self.model.named_parameters())
        if self.parallel.mesh is None and (folder / SINGLE_FILE).exists():
            tensors = load_file(folder / SINGLE_FILE)
        else:
            named = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
            optimizer_prefixes = {f"optimizer.{name}.": parameter for name, parameter in parameters.items()}
            tensors = load_sharded(folder, named if weights else {}, optimizer_prefixes, self.parallel)
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            kind, _, parameter = name.partition(".")
            parts[kind][parameter] = tensor
        if weights:
            self.model.load_state_dict(parts["model"])
        # `numbers` has those of all pipeline stages.
        local_numbers = {
            name: number for name, number in numbers.items() if name.rpartition(".")[0] in parameters
        }
        load_optimizer_state(self.model, self.optimizer, parts["optimizer"], local_numbers)

    def _unique_parameters(self) -> list[nn.Parameter]:
        """Parameters of the gradient norm: a tied matrix only once."""
        twice = None if self.pipeline is None else self.pipeline.tied_copy
        return [parameter for parameter in self._with_gradient() if parameter is not twice]

    def _with_gradient(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.grad is not None]


def accumulate(model: nn.Module, loss: Loss, micro_batches: Sequence[Any]) -> dict[str, Any]:
    """Run the micro-batches; gradients are summed over the ranks with the last one."""
    totals: dict[str, Any] = {}
    last = len(micro_batches) - 1
    for index, batch in enumerate(micro_batches):
        sync_gradients(model, now=index == last)
        value, metrics = loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        accumulate_metrics(totals, {"loss": value, **metrics})
    return totals


def _copy_to_cpu(tensor: Tensor) -> Tensor:
    local_tensor = local(tensor.detach())
    return as_dtensor_like(
        tensor, torch.empty(local_tensor.shape, dtype=local_tensor.dtype).copy_(local_tensor)
    )
