"""Training steps with pairs of parallel features: functions that a rank's process finds by name."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from math import prod
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from groundup.core.errors import GroundupError
from groundup.core.runtime import Layout
from groundup.model.config import DecoderConfig, MoE
from groundup.model.decoder import Decoder
from groundup.model.lora import Lora, adapters, attach
from groundup.parallel.context import SINGLE, ParallelContext, current_context
from groundup.parallel.engine import EngineSpec
from groundup.parallel.engines.native import Native, NativeEngine
from groundup.parallel.hardware import Hardware
from groundup.parallel.memory_tracker import MemoryTracker

AXES = ("fsdp", "replicate", "tensor", "context", "expert", "pipeline")
"""Features that need two ranks each."""
OTHERS = ("fp8", "lora", "selective", "full", "compile", "memory_tracker")
CONFIG = DecoderConfig(96, 64, 4, 4, 2, 16, 96, architecture="olmo3", qk_norm="width", max_seq_len=32)
MOE = MoE(4, 2, 32)
ROWS, SEQ_LEN, MICRO_BATCHES = 8, 32, 2

Pair = tuple[str, ...]


@dataclass(frozen=True)
class PairResult:
    """Two steps with some features."""

    curve: tuple[float, ...] = ()
    """loss and gradient norm of the first step, then of the second"""
    fp8_products: int = 0
    """of the second step, on rank 0"""
    refused: str = ""
    """the message, where the features don't compose"""


@dataclass(frozen=True)
class Batch:
    """A micro-batch of rows; under context parallel, this rank's positions of them."""

    ids: Tensor
    segments: Tensor
    positions: Tensor | None
    targets: Tensor
    weights: Tensor
    row_weights: Tensor


class CountFp8(TorchDispatchMode):
    """Counts fp8 products."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten._scaled_mm.default
        return function(*args, **(kwargs or {}))


def ranks_of(pair: Pair) -> int:
    return prod(2 for feature in pair if feature in AXES)


def train_pairs(pairs: list[Pair], config: DecoderConfig = CONFIG) -> dict[Pair, PairResult]:
    """Two steps with the features of each pair, on the ranks that there are."""
    torch.set_num_threads(1)
    return {pair: _train(pair, config) for pair in pairs}


def _train(pair: Pair, config: DecoderConfig) -> PairResult:
    sizes = {axis: 2 for axis in ("replicate", "tensor", "context", "expert", "pipeline") if axis in pair}
    config = replace(config, moe=MOE) if "expert" in pair or "moe" in pair else config
    try:
        with _aot_eager() if "compile" in pair else nullcontext():
            parallel = (
                current_context(Layout(**sizes), torch.device("cpu")) if dist.is_initialized() else SINGLE
            )
            engine = _engine(pair, config, parallel, Layout(**sizes))
            batches = _batches(config, parallel)
            first = engine.forward_backward(batches)
            engine.step(1.0)
            with ExitStack() as stack:
                if "memory_tracker" in pair:
                    stack.enter_context(MemoryTracker(engine.model, engine.optimizer, batches))
                counter = stack.enter_context(CountFp8()) if "fp8" in pair else CountFp8()
                second = engine.forward_backward(batches)
    except GroundupError as error:
        return PairResult(refused=str(error))
    curve = tuple(metrics[name] for metrics in (first, second) for name in ("loss", "grad_norm"))
    return PairResult(curve, counter.count)


def _engine(pair: Pair, config: DecoderConfig, parallel: ParallelContext, layout: Layout) -> NativeEngine:
    hardware = Hardware(
        torch.device("cpu"), torch.float32, 1, "compile" in pair, "", "fp8" in pair,
        "full" if "full" in pair else "selective" if "selective" in pair else "none",
    )  # fmt: skip
    model = Decoder(config)
    model.init_weights(0)
    if "lora" in pair:
        attach(model, Lora(rank=4), seed=1)
        generator = torch.Generator().manual_seed(2)
        for _, adapter in adapters(model):
            weight = adapter.lora_B.weight
            weight.data.copy_(0.1 * torch.randn(weight.shape, generator=generator))

    def build(named: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return torch.optim.SGD([parameter for _, parameter in named if parameter.requires_grad], lr=0.1)

    # Every layer is a unit of FSDP, as in a large model.
    with mock.patch("groundup.parallel.shard.SINGLE_UNIT_BYTES", 0):
        return Native().prepare(
            EngineSpec(model, _no_weights, hardware, parallel, layout, build, _loss, 0.0)  # weights are there
        )


def _batches(config: DecoderConfig, parallel: ParallelContext) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (ROWS, SEQ_LEN + 1), generator=generator)
    segments = (torch.arange(SEQ_LEN) >= 20).int().expand(ROWS, SEQ_LEN)
    weights = torch.full((ROWS, SEQ_LEN), 1 / (ROWS * SEQ_LEN))
    own, at = parallel.dp_slice(ROWS), parallel.positions(SEQ_LEN)
    positions = None if parallel.cp_group is None else torch.arange(SEQ_LEN)[None, at]
    whole = Batch(
        ids[own, :-1][:, at], segments[own], positions, ids[own, 1:][:, at], weights[own][:, at],
        weights[own].sum(dim=1),
    )  # fmt: skip
    rows = len(whole.ids) // MICRO_BATCHES
    parts = [slice(start, start + rows) for start in range(0, len(whole.ids), rows)]
    return [
        Batch(whole.ids[part], whole.segments[part], positions, whole.targets[part], whole.weights[part],
              whole.row_weights[part])
        for part in parts
    ]  # fmt: skip


def _loss(model: Decoder, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    hidden = model.hidden(batch.ids, batch.segments, positions=batch.positions).flatten(0, 1)
    loss = model.cross_entropy(hidden, model.head_weight, batch.targets.flatten(), batch.weights.flatten())[0]
    return (loss if model.config.moe is None else loss + model.balance_loss(batch.row_weights)), {}


def _no_weights(name: str, shape: torch.Size) -> Tensor:
    raise AssertionError("the model has its weights already")


@contextmanager
def _aot_eager() -> Iterator[None]:
    """Layers are traced and differentiated by the compiler, without generating kernels."""
    compile_module = nn.Module.compile

    def compile_(module: nn.Module, **options: Any) -> None:
        compile_module(module, backend="aot_eager", **options)

    torch.compiler.reset()
    with mock.patch.object(nn.Module, "compile", compile_), warnings.catch_warnings():
        # The compiler looks at attributes of activations.
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf Tensor")
        yield
