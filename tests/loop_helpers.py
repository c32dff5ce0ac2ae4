"""A training loop in miniature: a net of two layers, twelve steps, a state after each."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext
from groundup.parallel.engines.native import NativeEngine
from groundup.train.loop import TrainResult, TrainSpec, train
from groundup.train.optimizers.muon import Muon

STEPS = 12
EAGER = Runtime(checkpoint_seconds=1e-6)
"""Saves after every step."""


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 1))


def batch(step: int) -> list[Tensor]:
    return [torch.randn(4, 6, generator=torch.Generator().manual_seed(step))]


def squared(model: Any, x: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
    loss = (model(x)[:, 0] - x.sum(dim=1)).square().mean()
    return loss, {"rows": float(len(x))}


def go(
    folder: Path, model: nn.Module | None = None, quiet: bool = True, **changes: Any
) -> tuple[TrainResult, nn.Module]:
    model = model or net()
    optimizer = changes.pop("optimizer", None) or Muon(lr=0.05, adam_lr=0.01).build(model.named_parameters())
    engine = NativeEngine(model, optimizer, changes.pop("loss", squared), changes.pop("grad_clip", 1.0))
    spec = TrainSpec(
        label="train", engine=engine, batches=batch, schedule=lambda step: 1 - step / STEPS, steps=STEPS,
        context=StageContext(folder, Reporter(quiet=quiet)), runtime=EAGER,
    )  # fmt: skip
    return train(replace(spec, **changes)), model


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


class Killed(Exception):
    pass


def dying_at(step: int) -> Callable[[int], list[Tensor]]:
    def batches(at: int) -> list[Tensor]:
        if at == step:
            raise Killed
        return batch(at)

    return batches


def poisoned(bad: set[int]) -> Callable[[int], list[Tensor]]:
    return lambda step: [torch.full((4, 6), math.nan)] if step in bad else batch(step)
