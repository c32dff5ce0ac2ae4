"""Simulate a training step of one rank among many on fake tensors: memory, communication, FLOPs.

in:  a decoder's config, a number of ranks, their layout, rows per rank, and what builds the optimizer
out: Costs: memory, bytes sent by axis and kind, floating-point operations; all of one rank and one step

The step runs through the code that trains: `fit`, `spread`, the decoder's own forward and backward pass, clipping, the
optimizer. Tensors are PyTorch's FakeTensors, which have a shape and no memory; the other ranks are its fake process
group, which answers at once. So a rank of thousands is simulated in seconds, on a laptop.

What it doesn't see: memory inside an operator, what the allocator can't use, the driver's own. Layers are eager, which
keep more than compiled ones do; tensors say that they are on a CPU, and Muon takes fewer matrices at once there than on
a GPU. No time is estimated.
"""

import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.tensor.debug import (
    _clear_fast_path_sharding_prop_cache,
    _clear_python_sharding_prop_cache,
)
from torch.testing._internal.distributed.fake_pg import FakeStore

from groundup.core.runtime import ActivationCheckpointing, Layout
from groundup.model.attention import AttentionKernel
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.parallel.comm_volume import CommVolume
from groundup.parallel.context import SINGLE, ParallelContext, check_layout, current_context
from groundup.parallel.engines.native import accumulate
from groundup.parallel.expert_parallel import exchange_evenly
from groundup.parallel.gradient_clipping import clip_gradients, gradient_norm, sum_replicated_gradients
from groundup.parallel.hardware import Hardware, prepare_model
from groundup.parallel.memory_tracker import MemoryTracker, RankMemory
from groundup.parallel.parallelize import parallelize
from groundup.parallel.pipeline_parallel import Pipeline, Stage, batch_tensors
from groundup.parallel.shard import sync_gradients

Build = Callable[[Iterable[tuple[str, nn.Parameter]]], torch.optim.Optimizer]
"""Named parameters -> their optimizer."""


Passes = Callable[[list[Any]], object]
"""Forward and backward of all micro-batches."""


def _attend_causally(q: Tensor, k: Tensor, v: Tensor, _: None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] > k.shape[1])


CAUSAL_KERNEL = AttentionKernel("skipping", lambda segments, window: None, _attend_causally)
"""In place of FlexAttention, which must be compiled: keeps the same tensors and no mask."""

SHALLOW_LAYERS = (4, 8)
"""Layers of the two decoders that `estimate` extrapolates from."""


@dataclass(frozen=True)
class StepSetting:
    """What a step computes, and on how many ranks."""

    config: DecoderConfig
    seq_len: int
    ranks: int = 1
    layout: Layout = field(default_factory=Layout)
    rows: int = 1
    """sequences of a micro-batch of this rank; ranks of tensor and context have the same ones"""
    micro_batches: int = 1
    precision: Literal["bf16", "fp32"] = "bf16"
    activation_checkpointing: ActivationCheckpointing = "none"
    attention: AttentionKernel = CAUSAL_KERNEL
    stage: int = 0
    """pipeline index of the simulated rank"""


@dataclass(frozen=True)
class StepCosts:
    """Costs of one rank in one step."""

    peak: RankMemory
    """at the peak"""
    steady: RankMemory
    """between two steps"""
    sent: dict[tuple[str, str], int]
    """(axis, kind of collective) -> bytes that leave the rank; see `comm_volume.py`"""
    flops: int
    """of products, recomputation included; causal attention counts half"""


def simulate(setting: StepSetting, build_optimizer: Build) -> StepCosts:
    """Costs of a stage's first rank, whose shards are the largest, in its second step.

    build: e.g. `AdamW(lr=1e-3).build`. Experts get the same number of tokens each. To be called where no process
    group is.

    Raises GroundupError where the layout doesn't fit the decoder or the ranks.
    """
    with _simulated_rank(setting) as parallel, warnings.catch_warnings():
        # FSDP2 warns of what a caller might do in place to a view; nobody does.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        model, stages = _model(setting, parallel)
        with FakeTensorMode(allow_non_fake_inputs=True):
            roots: Sequence[Decoder] = stages or [model]
            for root in roots:
                root.to_empty(device="cpu")
            optimizer = build_optimizer(model.named_parameters())
            batches = [_batch(setting, parallel)] * setting.micro_batches
            passes = (
                _StagePasses(Pipeline(stages, setting.layout.schedule, _loss, parallel), batches)
                if stages
                else partial(accumulate, model, _loss)
            )
            # The first step also works out shapes of sharded tensors, whole ones, and makes the optimizer's memory.
            _training_step(model, passes, optimizer, batches, parallel)
            tracker, volume = MemoryTracker(model, optimizer, batches), CommVolume(parallel)
            with tracker, volume:
                _training_step(model, passes, optimizer, batches, parallel)
    return StepCosts(tracker.peak, tracker.now, dict(volume.sent), tracker.flops)


def estimate(setting: StepSetting, build_optimizer: Build) -> StepCosts:
    """`simulate` for deep decoders by extrapolation: every further layer costs the same.

    Simulates SHALLOW layers, and adds for all others what the last of them cost. Exact but for Muon, which takes
    several layers' matrices at once, and where the peak moves to another part of the step with depth.
    """
    config, (shallow_layers, deeper_layers) = setting.config, SHALLOW_LAYERS
    if config.n_layers <= shallow_layers + deeper_layers:
        return simulate(setting, build_optimizer)
    low, high = (
        simulate(
            replace(setting, config=replace(config, n_layers=n, windows=config.windows[:n])), build_optimizer
        )
        for n in SHALLOW_LAYERS
    )
    steps = (config.n_layers - shallow_layers) / (deeper_layers - shallow_layers)

    def extrapolate(first: int, second: int) -> int:
        return round(first + (second - first) * steps)

    def memory(first: RankMemory, second: RankMemory) -> RankMemory:
        return RankMemory(*map(extrapolate, astuple(first), astuple(second)))

    return StepCosts(
        memory(low.peak, high.peak),
        memory(low.steady, high.steady),
        {what: extrapolate(low.sent.get(what, 0), size) for what, size in high.sent.items()},
        extrapolate(low.flops, high.flops),
    )


@contextmanager
def _simulated_rank(setting: StepSetting) -> Iterator[ParallelContext]:
    """The parallel context of a stage's first rank on a fake process group."""
    ranks, layout = setting.ranks, setting.layout
    if ranks == 1:
        yield SINGLE
        return
    check_layout(layout, ranks)
    rank = setting.stage * ranks // layout.pipeline
    dist.init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())
    try:
        yield current_context(layout, torch.device("cpu"))
    finally:
        dist.destroy_process_group()
        # What is remembered of sharded tensors names these ranks' groups, which the next ones' are taken for.
        _clear_python_sharding_prop_cache()  # type: ignore[no-untyped-call]
        _clear_fast_path_sharding_prop_cache()  # type: ignore[no-untyped-call]


def _model(setting: StepSetting, parallel: ParallelContext) -> tuple[Decoder, list[Stage]]:
    """The parallelized decoder on the meta device; before fake tensors, since meshes need real ones."""
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[setting.precision]
    hardware = Hardware(
        torch.device("meta"), dtype, 1, False, "", activation_checkpointing=setting.activation_checkpointing
    )
    with torch.device("meta"):
        model = Decoder(setting.config)
    prepare_model(model, hardware)
    model.set_attention_kernel(setting.attention)
    stages = parallelize(model, parallel, hardware, setting.layout.schedule, _no_weights)
    exchange_evenly(model)
    return model, stages


@dataclass(frozen=True)
class _ShapeBatch:
    """A micro-batch with the fields that `Decoder.hidden` and `cross_entropy` need."""

    ids: Tensor
    segments: Tensor
    positions: Tensor | None
    targets: Tensor
    weights: Tensor


def _no_weights(name: str, shape: torch.Size) -> Tensor:
    raise AssertionError("tensors on the meta device aren't filled")


def _batch(setting: StepSetting, parallel: ParallelContext) -> _ShapeBatch:
    at = parallel.positions(setting.seq_len)
    whole = torch.zeros(setting.rows, setting.seq_len, dtype=torch.int64)
    positions = None if parallel.cp_group is None else torch.arange(setting.seq_len)[None, at]
    weights = torch.zeros(setting.rows, setting.seq_len)[:, at]
    return _ShapeBatch(whole[:, at], whole.to(torch.int32), positions, whole[:, at], weights)


def _loss(model: Decoder, batch: _ShapeBatch) -> tuple[Tensor, dict[str, Tensor]]:
    hidden = model.hidden(batch.ids, batch.segments, positions=batch.positions).flatten(0, 1)
    targets, weights, cap = batch.targets.flatten(), batch.weights.flatten(), model.config.logit_softcap
    loss = model.cross_entropy(hidden, model.head_weight, targets, weights, cap=cap)[0]
    if model.config.moe is not None:
        loss = loss + model.balance_loss(weights.new_ones(len(batch.ids)))
    return loss, {}


class _StagePasses:
    """This rank's part of a pipeline's passes, in the pipeline's order, without its neighbours."""

    def __init__(self, pipeline: Pipeline, batches: list[_ShapeBatch]) -> None:
        self._pipeline, self._order = pipeline, pipeline.order(batches)
        inner = [stage for stage in pipeline.stages if not stage.is_first]
        inner += [stage for stage in pipeline.stages if not stage.is_last]
        # PyTorch's stages keep room for what comes of every micro-batch, from both sides.
        self._room = [pipeline.empty_activation(stage, batch) for stage in inner for batch in batches]
        for stage in pipeline.stages:
            stage.example, stage.metric_totals = batches[0], {}

    def __call__(self, batches: list[_ShapeBatch]) -> None:
        pipeline, rest = self._pipeline, batch_tensors(batches[0])  # they are all alike
        ids = rest.pop("ids")
        left = {stage.index: len(batches) for stage in pipeline.stages}
        under_way: dict[int, deque[tuple[Tensor, Tensor]]] = defaultdict(deque)
        for stage, kind in self._order:
            if kind == "F":
                taken = (
                    ids if stage.is_first else pipeline.empty_activation(stage, batches[0]).requires_grad_()
                )
                out = stage(taken, **rest)
                under_way[stage.index].append((taken, out))
                if not stage.is_last:
                    pipeline.send(out.detach())
            elif kind != "I":  # half a backward pass; what is kept for the other half goes with that
                taken, out = under_way[stage.index].popleft()
                left[stage.index] -= 1
                sync_gradients(stage, now=left[stage.index] == 0)
                out.backward(None if stage.is_last else torch.empty_like(out))  # type: ignore[no-untyped-call]
                if not stage.is_first:
                    pipeline.send(cast(Tensor, taken.grad), back=True)


def _training_step(
    model: Decoder,
    passes: Passes,
    optimizer: torch.optim.Optimizer,
    batches: list[_ShapeBatch],
    parallel: ParallelContext,
) -> None:
    """A step of `NativeEngine`, without reading metrics: fake tensors have no values."""
    passes(batches)
    sum_replicated_gradients(model, parallel)
    clip_gradients(model.parameters(), 1.0, gradient_norm(model.parameters(), parallel))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
