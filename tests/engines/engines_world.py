"""What ranks do in the tests of engines."""

import importlib.util
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from groundup.core.site import Site
from groundup.core.stage import Metrics
from groundup.model.architectures.qwen3 import Qwen3
from groundup.model.decoder import Decoder
from groundup.parallel.engines import Job
from groundup.parallel.figures import Figures
from groundup.parallel.hardware import Precision, choose
from groundup.parallel.world import here
from groundup.train.optimizers.adamw import AdamW
from groundup.train.pretrain import Pretrain
from groundup.train.validate import TokenBatch, token_loss
from ranks_world import pretrainings
from training_world import SEQ_LEN, SITE, Inputs

if importlib.util.find_spec("deepspeed"):
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401  (ranks are forked from a process that has it)


def with_engines(
    sites: dict[str, Site], cases: dict[str, Pretrain], folder: Path, given: Inputs, leave_at: int = 0
) -> dict[str, dict[str, Metrics]]:
    """`pretrainings` with one site after the other, each into folder/<name>."""
    folder.mkdir(exist_ok=True)
    return {name: pretrainings(cases, site, folder / name, given, leave_at) for name, site in sites.items()}


def one_rank(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """`function` as it is called where there are no ranks."""
    dist.destroy_process_group()
    return function(*arguments)


Pair = tuple[float, float]


def plain_loss(model: Decoder, batch: TokenBatch) -> tuple[Tensor, Figures]:
    return token_loss(model, batch), {}


def repeated(
    engines: dict[str, Any], precision: Precision
) -> dict[str, tuple[Pair, Pair, Pair, list[str]]]:
    """What each engine says of one step's gradient: at once, again, and after one that isn't a number; what moved."""
    site = SITE.model_copy(update={"micro_batch": 1})
    hardware, found = choose(site, precision), {}
    world = here(site.layout, hardware.device)
    config = Qwen3(d_model=16, n_heads=2).config(2, vocab_size=64, max_seq_len=SEQ_LEN)
    rows = torch.randint(64, (2, 1, SEQ_LEN), generator=torch.Generator().manual_seed(dist.get_rank()))
    batches = [TokenBatch(row, row.roll(-1), torch.zeros_like(row), torch.full(row.shape, 0.01)) for row in rows]
    faulty = [replace(batch, weights=batch.weights * torch.nan) for batch in batches]
    for name, engine in engines.items():
        with torch.device("meta"):
            model = Decoder(config)
        learner = engine.prepare(
            Job(model, 0, hardware, world, site.layout, AdamW(lr=0.01).build, plain_loss, 1.0)
        )
        before = learner.snapshot().tensors
        said = [learner.gradient(of) for of in (batches, batches, faulty, batches)]
        assert math.isnan(said[2]["loss"]) and not math.isfinite(said[2]["grad_norm"])
        learner.forget()
        after = learner.snapshot().tensors
        first, again, _, last = [(one["loss"], one["grad_norm"]) for one in said]
        found[name] = first, again, last, [key for key in before if not torch.equal(before[key], after[key])]
    return found
