"""The set-up that the sessions of all methods share: hardware, ranks, engine, sampling.

in:  a method, its context, the rows of a step
out: SessionSetup; TrainedModel: the model in its engine, and whole on this rank where it samples or scores
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from groundup.align.method import Method, MethodContext
from groundup.align.rollouts import BatchShape
from groundup.core.errors import GroundupError
from groundup.core.records import Message
from groundup.core.registry import plugin_name
from groundup.core.runtime import Layout
from groundup.model.checkpoint import load_decoder, read_config
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.value_head import model_roots
from groundup.parallel.context import ParallelContext, current_context
from groundup.parallel.engine import EngineSpec, Loss, TrainEngine
from groundup.parallel.engines.native import NativeEngine
from groundup.parallel.hardware import Hardware, choose_hardware, micro_batch_rows, prepare_model
from groundup.parallel.layout import resolve_layout
from groundup.tokens.chat import prompt
from groundup.train.budget import TrainingBudget, training_budget
from groundup.train.loop import TrainSpec
from groundup.train.prefetch import StepBatches
from groundup.train.schedules import schedule_factor

Item = TypeVar("Item")
Result = TypeVar("Result")


class ReadsEpochs(Protocol):
    """The keys of a method that reads its data in epochs. max_tokens 0 = no limit."""

    @property
    def epochs(self) -> float: ...

    @property
    def max_tokens(self) -> int: ...

    @property
    def batch_rows(self) -> int: ...


@dataclass(frozen=True)
class SessionSetup:
    """Where and how a method trains. The initial policy is the input `start` of every method."""

    method: Method
    context: MethodContext
    hardware: Hardware
    layout: Layout
    parallel: ParallelContext
    config: DecoderConfig
    """the initial policy's decoder"""
    shape: BatchShape
    """of a micro-batch"""

    @staticmethod
    def create(
        method: Method, context: MethodContext, batch_rows: int, divide_rows: bool = True
    ) -> "SessionSetup":
        """Choose device, precision, layout and micro-batch.

        batch_rows: rows of a step, which data-parallel ranks divide; divide_rows=False: most rows of a micro-batch.
        Raises GroundupError where the method does not support the runtime's engine or layout.
        """
        runtime = context.runtime
        _check_engine(method, context)
        hardware = choose_hardware(runtime, method.precision)
        config = read_config(context.inputs["start"])
        time = method.row_tokens(config.max_seq_len)
        ranks = dist.get_world_size() if dist.is_initialized() else 1
        total_rows = batch_rows if divide_rows else batch_rows * ranks
        layout = resolve_layout(runtime, config, total_rows, time, hardware.device)
        _check_layout(method, layout)
        parallel = current_context(layout, hardware.device)
        rows_per_rank = _rows_per_rank(method, batch_rows, parallel) if divide_rows else batch_rows
        rows = micro_batch_rows(runtime, config, time, rows_per_rank, hardware.device)
        shape = BatchShape(rows, time, context.tokenizer.pad)
        return SessionSetup(method, context, hardware, layout, parallel, config, shape)

    def start_policy(self) -> Decoder:
        """The initial policy, whole, on this rank's device."""
        return load_decoder(self.context.inputs["start"], self.hardware.device, self.hardware.dtype)

    def trained(self, model: nn.Module, loss: Loss) -> "TrainedModel":
        """`model` in the runtime's engine, which trains a copy of it where ranks share it."""
        sharded = self.parallel.mesh is not None
        weights = model.state_dict()
        spec = EngineSpec(
            meta_copy(model) if sharded else model,
            lambda name, _: weights[name].cpu(),
            self.hardware,
            self.parallel,
            self.layout,
            self.method.optimizer.resolved(self.config.d_model).build,
            loss,
            self.method.grad_clip,
        )
        template = meta_copy(model)
        return TrainedModel(self.context.runtime.engine.prepare(spec), template, self.hardware)

    def train_spec(
        self,
        engine: TrainEngine,
        batches: StepBatches[Any],
        steps: int,
        tokens_per_step: int = 0,
        checkpoint_every: int = 1,
        on_policy: bool = False,
    ) -> TrainSpec:
        """The training loop's parameters. on_policy: the batches are sampled from the trained weights."""
        method = self.method
        warmup = round(method.warmup_fraction * steps)
        return TrainSpec(
            label=plugin_name(method),
            engine=engine,
            batches=batches,
            schedule=lambda step: schedule_factor(method.schedule, step, steps, warmup),
            steps=steps,
            context=self.context.stage,
            runtime=self.context.runtime,
            parallel=self.parallel,
            tokens_per_step=tokens_per_step,
            checkpoint_every=checkpoint_every,
            prefetch=not on_policy,
            detect_spikes=not on_policy,
            environment=self.hardware.numerics(),
        )

    def exceeds_kl(self, kl: float, max_kl: float, iterations: int) -> bool:
        """Whether training on the policy's own responses stops after `iterations`; says so.

        kl: mean KL divergence of a response from the reference policy, nats.
        """
        if kl <= max_kl:
            return False
        self.context.stage.info(
            f"stopped early after {iterations} iterations: the mean KL divergence of a response from the reference "
            f"policy is {kl:.1f} nats, above max_kl = {max_kl:g}"
        )
        return True

    def budget(
        self, recipe: "ReadsEpochs", items: str, packed: int, packed_share: float = 1.0
    ) -> TrainingBudget:
        """What a method reads of `packed` micro-batches, up to its `epochs` or `max_tokens`; says so.

        items: what it reads. packed_share: share of them that was packed.
        """
        per_step, step_tokens = recipe.batch_rows // self.shape.rows, recipe.batch_rows * self.shape.time
        limits = {"epochs": math.ceil(recipe.epochs * packed / per_step)}
        if recipe.max_tokens:
            limits["max_tokens"] = recipe.max_tokens // step_tokens
        budget = training_budget(packed, per_step, limits, packed_share)
        self.context.stage.info(budget.sentence(items, getattr(recipe, budget.ended_by)))
        return budget

    def divided(
        self, items: Sequence[Item], compute: Callable[[Sequence[Item], int], Result]
    ) -> list[Result]:
        """`compute` of contiguous parts of `items`, one for each data-parallel rank; the results of all, in order.

        compute: (part, index of its first item) -> result, without communication between ranks.
        """
        parallel = self.parallel
        first, end = (len(items) * (parallel.dp_rank + i) // parallel.dp_size for i in (0, 1))
        results = parallel.gather_dp(compute(items[first:end], first) if first < end else None)
        return [result for result in results if result is not None]

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The messages with the generation prompt."""
        return prompt(messages, self.context.tokenizer)


class TrainedModel:
    """A model in its engine. On one rank of the native engine it is the same object as the whole model."""

    def __init__(self, engine: TrainEngine, template: nn.Module, hardware: Hardware) -> None:
        """template: the model on the meta device."""
        self.engine, self._template, self._hardware = engine, template, hardware
        self._whole: nn.Module | None = None

    def whole(self) -> Any:
        """The model with all its current weights on this rank. With several ranks, all must call this."""
        engine = self.engine
        if isinstance(engine, NativeEngine) and engine.holds_whole_model:
            return engine.model
        if self._whole is None:
            self._whole = copy.deepcopy(self._template).to_empty(device=self._hardware.device)
            for buffer in self._whole.buffers():
                buffer.zero_()
            for root in model_roots(self._whole):
                prepare_model(root, self._hardware)
        self._whole.load_state_dict(engine.whole_weights())
        return self._whole.eval()


def meta_copy(model: nn.Module) -> nn.Module:
    """The same module with its tensors on the meta device."""
    memo: dict[int, Tensor] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
        for parameter in model.parameters()
    }
    memo |= {id(buffer): torch.empty_like(buffer, device="meta") for buffer in model.buffers()}
    return copy.deepcopy(model, memo)


def _check_engine(method: Method, context: MethodContext) -> None:
    engine = plugin_name(context.runtime.engine)
    if engine not in method.engines:
        raise GroundupError(
            f'runtime.engine.use = "{engine}" does not support the method `{plugin_name(method)}`. Use '
            f"{' or '.join(sorted(method.engines))} for this stage (the runtime is no part of an artifact's identity)"
        )


def _check_layout(method: Method, layout: Layout) -> None:
    for axis in ("pipeline", "context", "expert", "tensor"):
        size = getattr(layout, axis)
        if size > 1 and axis not in method.layout_axes:
            raise GroundupError(
                f"runtime.layout.{axis} = {size}: the method `{plugin_name(method)}` does not support this axis. Set "
                f"{axis} = 1 for this stage (the runtime is no part of an artifact's identity)"
            )


def _rows_per_rank(method: Method, batch_rows: int, parallel: ParallelContext) -> int:
    if batch_rows % parallel.dp_size:
        raise GroundupError(
            f"{plugin_name(method)}: {batch_rows} rows of a step can't be divided among {parallel.dp_size} "
            f"data-parallel ranks. Set batch_rows to a multiple of {parallel.dp_size}"
        )
    return batch_rows // parallel.dp_size
