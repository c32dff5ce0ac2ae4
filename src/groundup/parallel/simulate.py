"""What a training step costs each of many ranks, found without them: one rank's step on tensors that hold nothing.

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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

from groundup.core.errors import GroundupError
from groundup.core.site import Layout, Recompute
from groundup.model.attention import AttentionKernel
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.parallel.engines.native import accumulate
from groundup.parallel.expert import share_evenly
from groundup.parallel.hardware import Hardware, fit
from groundup.parallel.ledger import Ledger, Memory
from groundup.parallel.shard import clip_gradients, finish_gradients, gradient_norm
from groundup.parallel.spread import spread
from groundup.parallel.traffic import Traffic
from groundup.parallel.world import ALONE, World, here

Build = Callable[[Iterable[tuple[str, nn.Parameter]]], torch.optim.Optimizer]
"""Named parameters -> their optimizer."""


def _attend_causally(q: Tensor, k: Tensor, v: Tensor, _: None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] > k.shape[1])


SKIPPING = AttentionKernel("skipping", lambda segments, window: None, _attend_causally)
"""Stands for FlexAttention, which can only be compiled: the same tensors are kept, and no mask of every pair."""

SHALLOW = (4, 8)
"""Layers of the decoders that stand for a deep one."""


@dataclass(frozen=True)
class Setting:
    """Who computes what in a step."""

    config: DecoderConfig
    seq_len: int
    ranks: int = 1
    layout: Layout = field(default_factory=Layout)
    rows: int = 1
    """of a micro-batch, of this rank; ranks that share matrices or positions have the same rows"""
    micro_batches: int = 1
    precision: Literal["bf16", "fp32"] = "bf16"
    recompute: Recompute = "none"
    attention: AttentionKernel = SKIPPING


@dataclass(frozen=True)
class Costs:
    """Of one rank and one step."""

    peak: Memory
    """when most is held"""
    steady: Memory
    """between two steps"""
    sent: dict[tuple[str, str], int]
    """(axis, kind of collective) -> bytes that leave the rank; see `traffic.py`"""
    flops: int
    """of products; what is recomputed counts, and of causal attention the half that is computed"""

    def sent_over(self, axis: str) -> int:
        """Bytes over one axis."""
        return sum(size for (name, _), size in self.sent.items() if name == axis)


def simulate(setting: Setting, build: Build) -> Costs:
    """The costs of rank 0, whose shares are the largest, in its second step: from then on all steps are alike.

    build: e.g. `AdamW(lr=1e-3).build`. Experts get the same number of tokens each. To be called where no process
    group is.

    Raises GroundupError where the layout doesn't fit the decoder or the ranks, and for pipelines.
    """
    if setting.layout.pipeline > 1:
        raise GroundupError(
            "a pipeline isn't simulated: its stages wait for numbers. Set site.layout.pipeline = 1"
        )
    with _one_of(setting.ranks, setting.layout) as world, warnings.catch_warnings():
        # FSDP2 warns of what a caller might do in place to a view; nobody does.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
        model = _model(setting, world)
        with FakeTensorMode(allow_non_fake_inputs=True):
            model.to_empty(device="cpu")
            optimizer = build(model.named_parameters())
            batches = [_batch(setting, world)] * setting.micro_batches
            # The first step also works out shapes of sharded tensors, whole ones, and makes the optimizer's memory.
            _step(model, optimizer, batches, world)
            ledger, traffic = Ledger(model, optimizer, batches), Traffic(world)
            with ledger, traffic:
                _step(model, optimizer, batches, world)
    return Costs(ledger.peak, ledger.now, dict(traffic.sent), ledger.flops)


def estimate(setting: Setting, build: Build) -> Costs:
    """`simulate` for deep decoders, in a fraction of the time: every further layer costs the same.

    Simulates SHALLOW layers, and adds for all others what the last of them cost. Exact but for Muon, which takes
    several layers' matrices at once, and where the peak moves to another part of the step with depth.
    """
    config, (few, more) = setting.config, SHALLOW
    if config.n_layers <= few + more:
        return simulate(setting, build)
    low, high = (
        simulate(replace(setting, config=replace(config, n_layers=n, windows=config.windows[:n])), build)
        for n in SHALLOW
    )
    steps = (config.n_layers - few) / (more - few)

    def onward(first: int, second: int) -> int:
        return round(first + (second - first) * steps)

    def memory(first: Memory, second: Memory) -> Memory:
        return Memory(*map(onward, astuple(first), astuple(second)))

    return Costs(
        memory(low.peak, high.peak),
        memory(low.steady, high.steady),
        {what: onward(low.sent.get(what, 0), size) for what, size in high.sent.items()},
        onward(low.flops, high.flops),
    )


@contextmanager
def _one_of(ranks: int, layout: Layout) -> Iterator[World]:
    """Be rank 0 of so many ranks that aren't there."""
    if ranks == 1:
        yield ALONE
        return
    dist.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())
    try:
        yield here(layout, torch.device("cpu"))
    finally:
        dist.destroy_process_group()


def _model(setting: Setting, world: World) -> Decoder:
    """The decoder on the meta device, spread over the ranks: what makes meshes needs numbers, so it comes first."""
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[setting.precision]
    hardware = Hardware(torch.device("meta"), dtype, 1, False, "", recompute=setting.recompute)
    with torch.device("meta"):
        model = Decoder(setting.config)
    fit(model, hardware)
    model.use(setting.attention)
    spread(model, world, hardware, setting.layout.schedule, seed=0)
    share_evenly(model)
    return model


@dataclass(frozen=True)
class _Batch:
    """A micro-batch, as `Decoder.hidden` and `cross_entropy` take it."""

    ids: Tensor
    segments: Tensor
    positions: Tensor | None
    targets: Tensor
    weights: Tensor


def _batch(setting: Setting, world: World) -> _Batch:
    at = world.positions(setting.seq_len)
    whole = torch.zeros(setting.rows, setting.seq_len, dtype=torch.int64)
    positions = None if world.context is None else torch.arange(setting.seq_len)[None, at]
    weights = torch.zeros(setting.rows, setting.seq_len)[:, at]
    return _Batch(whole[:, at], whole.to(torch.int32), positions, whole[:, at], weights)


def _loss(model: Decoder, batch: _Batch) -> tuple[Tensor, dict[str, Tensor]]:
    hidden = model.hidden(batch.ids, batch.segments, positions=batch.positions).flatten(0, 1)
    targets, weights, cap = batch.targets.flatten(), batch.weights.flatten(), model.config.logit_softcap
    loss = model.cross_entropy(hidden, model.head_weight, targets, weights, cap=cap)[0]
    if model.config.moe is not None:
        loss = loss + model.balance_loss(weights.new_ones(len(batch.ids)))
    return loss, {}


def _step(model: Decoder, optimizer: torch.optim.Optimizer, batches: list[_Batch], world: World) -> None:
    """What `NativeLearner` does, but for reading figures: these tensors have none."""
    accumulate(model, _loss, batches)
    finish_gradients(model, world)
    clip_gradients(model.parameters(), 1.0, gradient_norm(model.parameters(), world))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
