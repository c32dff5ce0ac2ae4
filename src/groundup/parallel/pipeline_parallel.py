"""Pipeline parallel: ranks hold different layers, and micro-batches pass through them one after another.

in:  a decoder, not yet sharded, and a ParallelContext with the axis `pipeline`
out: this rank's stages, each a decoder whose other layers are identities; Pipeline, which runs micro-batches

Schedules of `torch.distributed.pipelining`: 1F1B and, with two stages per rank, interleaved (Narayanan et al. 2021,
https://arxiv.org/abs/2104.04473), and zero-bubble (Qi et al. 2023, https://arxiv.org/abs/2401.10241), which computes
gradients of weights while a rank would wait. The loss is computed in the last stage; with tied embeddings, first and
last stage both hold the matrix and sum its gradients.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import fields, replace
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import PipelineScheduleSingle, get_schedule_class

from groundup.core.errors import GroundupError
from groundup.core.runtime import Schedule
from groundup.model.decoder import Decoder
from groundup.parallel.context import ParallelContext
from groundup.parallel.engine import Loss
from groundup.parallel.hardware import Hardware
from groundup.parallel.reduce_metrics import accumulate_metrics
from groundup.parallel.shard import local

SCHEDULES: dict[Schedule, tuple[str, int]] = {
    "1f1b": ("1F1B", 1),
    "interleaved": ("Interleaved1F1B", 2),
    "zero_bubble": ("InterleavedZeroBubble", 2),
}
"""PyTorch's name of each schedule, and its stages per rank."""


ModuleType = TypeVar("ModuleType", bound=nn.Module)


class Stage(Decoder):
    """Some of a decoder's layers. `ids` are token ids in the first stage, the previous stage's output in the others."""

    index: int
    is_first: bool
    is_last: bool
    loss: Loss
    example: Any
    """a micro-batch, of which all but the tensors is used"""
    metric_totals: dict[str, Any]
    """metrics of the micro-batches since the step began"""
    output: Tensor
    """the stream after these layers, of the latest forward pass"""

    def forward(self, ids: Tensor, **rest: Tensor) -> Tensor:  # type: ignore[override]
        """A micro-batch's stream after these layers; in the last stage its loss, [1]."""
        value, metrics = self.loss(self, replace(self.example, ids=ids, **rest))
        accumulate_metrics(self.metric_totals, {"loss": value, **metrics})
        if self.is_last:
            return value.reshape(1).clone()  # FSDP warns of views
        if not value.requires_grad:
            return self.output
        return cast(Tensor, _AddLossGradient.apply(self.output, value))  # type: ignore[no-untyped-call]

    def hidden(self, *arguments: Any, **named: Any) -> Float[Tensor, "batch time width"]:
        """The stream after these layers."""
        self.output = super().hidden(*arguments, **named).contiguous()
        return self.output

    def _embed(self, ids: Tensor, positions: Tensor) -> Float[Tensor, "batch time width"]:
        return super()._embed(ids, positions) if self.is_first else ids


class _AddLossGradient(torch.autograd.Function):
    """The identity on the stream, whose backward pass also differentiates a loss of these layers alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        return grads[0], torch.ones((), device=grads[0].device)


class _Identity(nn.Module):
    """Stands in for a module that another rank holds."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.weight = torch.empty(0, device=device)

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        return x


class _IdentityLayer(_Identity):
    def forward(self, x: Tensor, *_: Any) -> tuple[Tensor, None]:  # type: ignore[override]
        return x, None

    forward_uncompiled = forward


def split_stages(
    model: Decoder, parallel: ParallelContext, schedule: Schedule, hardware: Hardware
) -> list[Stage]:
    """This rank's stages; `model` keeps their parameters only, under the same names. Empty without the axis.

    Raises GroundupError for a decoder with fewer layers than stages or whose layers use the embedding, and for
    selective activation checkpointing with zero_bubble.
    """
    if parallel.pipeline == 1:
        return []
    per_rank = SCHEDULES[schedule][1]
    count = parallel.pipeline * per_rank
    _check(model, count, schedule)
    if schedule == "zero_bubble" and hardware.activation_checkpointing == "selective":
        raise GroundupError(
            'runtime.activation_checkpointing = "selective" allows one backward pass per layer, and '
            'runtime.layout.schedule = "zero_bubble" runs two. Set activation_checkpointing to "full" or "none", or '
            'schedule to "interleaved"'
        )
    indices = [parallel.stage + parallel.pipeline * turn for turn in range(per_rank)]
    stages = [_stage(model, index, count, hardware.device) for index in indices]
    layers = [layer for stage in indices for layer in _layers(model, stage, count)]
    _remove_other_stages(model, layers, 0 in indices, count - 1 in indices, hardware.device)
    return stages


def _check(model: Decoder, stages: int, schedule: Schedule) -> None:
    config = model.config
    if config.n_layers < stages:
        raise GroundupError(
            f'runtime.layout: {stages} pipeline stages (schedule = "{schedule}") need at least as many layers, and '
            f"this decoder has {config.n_layers}. Use a smaller pipeline axis"
        )
    for name in ("value_embeddings", "embedding_scalars"):
        if getattr(config, name):
            raise GroundupError(
                f"runtime.layout.pipeline: with {name} every layer reads the embedding, which only the first stage "
                "has. Set pipeline = 1"
            )


def _layers(model: Decoder, stage: int, stages: int) -> range:
    total = model.config.n_layers
    return range(total * stage // stages, total * (stage + 1) // stages)


def _stage(model: Decoder, index: int, count: int, device: torch.device) -> Stage:
    """A decoder that shares these layers, and other modules, with `model`."""
    stage = _shallow_copy(model, Stage)
    stage.model = _shallow_copy(stage.model, type(stage.model))
    stage.model.layers = _shallow_copy(stage.model.layers, nn.ModuleList)
    stage.index, stage.is_first, stage.is_last = index, index == 0, index == count - 1
    stage.metric_totals = {}
    _remove_other_stages(stage, list(_layers(model, index, count)), stage.is_first, stage.is_last, device)
    if not stage.is_last:
        stage.cross_entropy = _no_loss
    return stage


def _shallow_copy(module: nn.Module, kind: type[ModuleType]) -> ModuleType:
    """A `kind` with the children, parameters and attributes of `module`, but hooks of its own."""
    twin = kind.__new__(kind)
    twin.__dict__.update(
        (name, copy(value) if isinstance(value, dict) else value) for name, value in vars(module).items()
    )
    return twin


def _remove_other_stages(
    model: Decoder, kept: list[int], begins: bool, ends: bool, device: torch.device
) -> None:
    """Replace layers and matrices of other pipeline stages with identities."""
    backbone, head, tied = cast(Any, model.model), cast(Any, model), model.config.tie_embeddings
    for index in range(model.config.n_layers):
        if index not in kept:
            backbone.layers[index] = _IdentityLayer(device)
    if not begins:
        if model.config.positions == "learned":
            backbone.embed_positions = _Identity(device)
        if not (tied and ends):
            backbone.embed_tokens = _Identity(device)
    if not ends:
        backbone.norm = _Identity(device)
        if not tied:
            head.lm_head = _Identity(device)


def _no_loss(hidden: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
    zero = torch.zeros((), device=hidden.device)
    return zero, zero


class Pipeline:
    """Runs micro-batches through the stages of all ranks."""

    def __init__(
        self, stages: Sequence[Stage], schedule: Schedule, loss: Loss, parallel: ParallelContext
    ) -> None:
        assert parallel.mesh is not None
        self.stages, self._name, self._parallel = stages, schedule, parallel
        self._group = parallel.mesh.get_group("pipeline")
        self._count = parallel.pipeline * SCHEDULES[schedule][1]
        self._schedule: Any = None
        self._clock = _ComputeClock()
        for stage in stages:
            stage.loss = loss

    @property
    def tied_copy(self) -> Tensor | None:
        """The last stage's copy of a tied embedding, if this rank holds it."""
        last = self.stages[-1]
        return last.head_weight if last.is_last and last.config.tie_embeddings else None

    def backward(self, micro_batches: Sequence[Any]) -> dict[str, Any]:
        """Add the gradients of all micro-batches to the parameters; returns the sums of this rank's metrics.

        All micro-batches have the same shape in every step.
        """
        for stage in self.stages:
            stage.example, stage.metric_totals = micro_batches[0], {}
        if self._schedule is None:
            self._schedule = self._build_schedule(micro_batches)
        parts = [batch_tensors(batch) for batch in micro_batches]
        whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        ids = whole.pop("ids")
        arguments = [ids] if self.stages[0].is_first else []
        self._clock.start()
        self._schedule.step(*arguments, target=ids, return_outputs=False, **whole)
        totals: dict[str, Any] = self._clock.metrics(self._parallel)
        self._sum_tied_gradients()
        for stage in self.stages:
            accumulate_metrics(totals, stage.metric_totals)
        return totals

    def eval_loss(self, batch: Any) -> Float[Tensor, ""]:
        """The loss of a batch, without a gradient; zero on ranks without the last stage."""
        value = torch.zeros((), device=batch.ids.device)
        rest = batch_tensors(batch)
        ids = rest.pop("ids")
        sent: list[tuple[Tensor, dist.Work]] = []
        for stage in self.stages:
            stage.example = batch
            output = stage(ids if stage.is_first else self._receive(stage, batch), **rest)
            if stage.is_last:
                value = output[0]
            else:
                sent.append((output, self.send(output)))  # the tensor must stay alive until it is sent
        for _, work in sent:
            work.wait()
        return value

    def order(self, micro_batches: Sequence[Any]) -> list[tuple[Stage, str]]:
        """This rank's passes of a step, in their order: (stage, kind), micro-batch after micro-batch in each stage.

        "F": forward, "B": backward; "I" and "W": gradients of the inputs and of the weights alone.
        """
        stages = {stage.index: stage for stage in self.stages}
        actions = self._build_schedule(micro_batches).pipeline_order[self._parallel.stage]
        # None is idle time; actions without a micro-batch reduce gradients.
        passes = [action for action in actions if action and action.microbatch_index is not None]
        return [(stages[action.stage_index], action.computation_type.value) for action in passes]

    def _build_schedule(self, micro_batches: Sequence[Any]) -> Any:
        """PyTorch's schedule for these micro-batches."""
        schedule_class = get_schedule_class(SCHEDULES[self._name][0])
        stages = [self._pytorch_stage(stage, micro_batches[0]) for stage in self.stages]
        scheduled = stages[0] if issubclass(schedule_class, PipelineScheduleSingle) else stages
        # The last stage returns a loss already, divided by the weight of the whole step.
        return schedule_class(
            scheduled, len(micro_batches), loss_fn=lambda value, _: value.sum(), scale_grads=False
        )

    def _pytorch_stage(self, stage: Stage, batch: Any) -> PipelineStage:
        stream = self.empty_activation(stage, batch).requires_grad_()
        return _TimedStage(
            self._clock,
            stage,
            stage.index,
            self._count,
            stream.device,
            input_args=batch.ids if stage.is_first else stream,
            output_args=torch.empty(1, device=stream.device, requires_grad=True) if stage.is_last else stream,
            group=self._group,
        )

    def empty_activation(self, stage: Stage, batch: Any) -> Tensor:
        """A buffer for the stream between stages; of a rank's own positions under tensor parallel."""
        rows, time = batch.ids.shape
        shape = rows, time // self._parallel.axis_size("tensor"), stage.config.d_model
        return torch.empty(shape, dtype=stage.compute_dtype, device=batch.ids.device)

    def _receive(self, stage: Stage, batch: Any) -> Tensor:
        received = self.empty_activation(stage, batch)
        dist.recv(received, group=self._group, group_src=(self._parallel.stage - 1) % self._parallel.pipeline)
        return received

    def send(self, x: Tensor, back: bool = False) -> dist.Work:
        """Start sending to the rank of the next stage, or of the previous one."""
        to = (self._parallel.stage + (-1 if back else 1)) % self._parallel.pipeline
        work = dist.isend(x, group=self._group, group_dst=to)
        assert work is not None
        return work

    def _sum_tied_gradients(self) -> None:
        """Sum the tied matrix's gradients of the first and the last stage, on both."""
        begins, ends = self.stages[0].is_first, self.stages[-1].is_last
        if not self.stages[0].config.tie_embeddings or not (begins or ends):
            return
        matrix = self.stages[0 if begins else -1].head_weight
        gradient, other = local(cast(Tensor, matrix.grad)), self._parallel.pipeline - 1 if begins else 0
        received = torch.empty_like(gradient)
        sent = dist.isend(gradient.contiguous(), group=self._group, group_dst=other)
        dist.recv(received, group=self._group, group_src=other)
        assert sent is not None
        sent.wait()
        gradient.add_(received)


class _ComputeClock:
    """Time that a rank's stages compute. For CPUs: on a GPU a pass returns before it is computed."""

    def __init__(self) -> None:
        self._busy = self._start = 0.0

    def start(self) -> None:
        """Start a step."""
        self._busy, self._start = 0.0, time.perf_counter()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Times one pass of a micro-batch through a stage."""
        start_time = time.perf_counter()
        yield
        self._busy += time.perf_counter() - start_time

    def metrics(self, parallel: ParallelContext) -> dict[str, float]:
        """bubble_share: the fraction of the step that pipeline ranks are idle; this rank's part of the mean of all."""
        if parallel.mesh is None or parallel.mesh.device_type != "cpu":
            return {}
        idle = 1 - self._busy / (time.perf_counter() - self._start)
        return {"bubble_share": idle / (parallel.size // parallel.axis_size("tensor"))}


class _TimedStage(PipelineStage):
    def __init__(self, clock: _ComputeClock, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._clock = clock

    def forward_one_chunk(self, *arguments: Any, **named: Any) -> Any:
        with self._clock.computing():
            return super().forward_one_chunk(*arguments, **named)

    def backward_one_chunk(self, *arguments: Any, **named: Any) -> Any:
        with self._clock.computing():
            return super().backward_one_chunk(*arguments, **named)

    def backward_weight_one_chunk(self, *arguments: Any, **named: Any) -> Any:
        with self._clock.computing():
            return super().backward_weight_one_chunk(*arguments, **named)


def batch_tensors(batch: Any) -> dict[str, Tensor]:
    """The tensors of a micro-batch by name, all expanded to its rows."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    return {name: value.expand(len(batch.ids), *value.shape[1:]) for name, value in tensors.items()}
