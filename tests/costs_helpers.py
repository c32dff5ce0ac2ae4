"""A real training step whose costs can be measured: functions that a rank's process finds by name."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from itertools import accumulate
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

from groundup.model.attention import FUSED
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.losses import chunk_with_gradient
from groundup.parallel.comm_timing import CommTiming
from groundup.parallel.context import ParallelContext, current_context
from groundup.parallel.engine import EngineSpec
from groundup.parallel.engines.native import Native, NativeEngine
from groundup.parallel.hardware import Hardware
from groundup.parallel.shard import local
from groundup.parallel.simulate import StepSetting
from groundup.train.anomaly import AnomalyGuard
from groundup.train.batches import TokenBatch, own_positions
from groundup.train.optimizers.adamw import AdamW
from groundup.train.pretrain_loss import pretraining_loss
from groundup.train.step import Stepper

CONFIG = DecoderConfig(512, 128, 4, 4, 2, 32, 384, architecture="llama", qk_norm="none", max_seq_len=128)
SETTING = StepSetting(CONFIG, seq_len=128, rows=4, attention=FUSED)
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
BUILD = AdamW(lr=1e-3).build
DAWDLE = 0.5
"""Seconds."""


def large() -> AbstractContextManager[object]:
    """Every decoder counts as one that is gathered layer by layer."""
    return mock.patch("groundup.parallel.shard.SINGLE_UNIT_BYTES", 0)


def trainer(setting: StepSetting) -> tuple[Stepper, NativeEngine, list[TokenBatch], ParallelContext]:
    """What trains for real with this setting, what it moves, and this rank's micro-batches."""
    torch.set_num_threads(1)
    device = torch.device("cpu")
    world = current_context(setting.layout, device)
    hardware = Hardware(
        device,
        DTYPES[setting.precision],
        1,
        False,
        "",
        activation_checkpointing=setting.activation_checkpointing,
    )
    with torch.device("meta" if world.mesh is not None else "cpu"):
        model = Decoder(setting.config)
    shape = (setting.rows, setting.seq_len)
    ids = torch.randint(setting.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    whole = TokenBatch(ids, ids, torch.zeros(shape, dtype=torch.int32), torch.ones(shape) / ids.numel())
    loss = pretraining_loss(chunk_with_gradient)
    with large():
        learner = Native().prepare(
            EngineSpec(
                model, partial(model.init_tensor, seed=0), hardware, world, setting.layout, BUILD, loss, 1.0
            )
        )
    return (
        Stepper(learner, AnomalyGuard(), False),
        learner,
        [own_positions(whole, world)] * setting.micro_batches,
        world,
    )


def held(settings: list[StepSetting], steps: int = 4) -> list[tuple[int, int]]:
    """Bytes that rank 0 holds when it is most, and between two steps.

    The rise within a step as the C++ allocator reports it to PyTorch's profiler: every block that is taken and given
    back, whoever asks. What gloo's threads are the last to give back isn't seen, now and then; so it is the smallest
    rise of several steps.
    """
    return [_held(setting, steps) for setting in settings]


def _held(setting: StepSetting, steps: int) -> tuple[int, int]:
    stepper, learner, batches, _ = trainer(setting)
    stepper.train_step(0, batches)
    parameters = [local(parameter.detach()) for parameter in learner.model.parameters()]
    moments = [local(value) for state in learner.optimizer.state.values() for value in state.values()]
    between = sum(tensor.nbytes for tensor in parameters + moments)
    return between + min(
        _rise(partial(stepper.train_step, step, batches)) for step in range(1, steps)
    ), between


def _rise(function: Callable[[], object]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        function()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    in_order = sorted(events, key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in in_order))


def accounted(setting: StepSetting, slow: int) -> tuple[dict[str, float], dict[tuple[str, str], int]]:
    """Figures and bytes sent of one step, in which the rank `slow` takes its time."""
    stepper, _, batches, world = trainer(setting)
    stepper.train_step(0, batches)
    with CommTiming(world, torch.device("cpu")) as costs:
        if world.rank == slow:
            time.sleep(DAWDLE)
        stepper.train_step(1, batches)
    return costs.metrics(), dict(costs.sent)
