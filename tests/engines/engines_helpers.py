"""What ranks do in the tests of engines."""

import importlib.util
import math
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from megatron_on_cpu import cuda_is_cpu
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from groundup.core.recipe import Recipe
from groundup.core.registry import plugin_name
from groundup.core.runtime import Layout, Runtime
from groundup.core.stage import Metrics
from groundup.model.architectures import Architecture
from groundup.model.architectures.qwen3 import Qwen3
from groundup.model.checkpoint import load_decoder
from groundup.model.decoder import Decoder
from groundup.parallel.context import current_context
from groundup.parallel.engine import EngineSpec
from groundup.parallel.engines.native import Native
from groundup.parallel.hardware import Precision, choose_hardware
from groundup.parallel.launcher import launch
from groundup.parallel.reduce_metrics import StepMetrics
from groundup.parallel.shard import local
from groundup.train.batches import TokenBatch
from groundup.train.optimizers.adamw import AdamW
from groundup.train.pretrain import Pretrain
from groundup.train.validate import token_loss
from ranks_helpers import curve, pretrainings
from training_helpers import SEQ_LEN, SITE, Inputs, recipe

if importlib.util.find_spec("deepspeed"):
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401  (ranks are forked from a process that has it)

if importlib.util.find_spec("megatron"):
    with warnings.catch_warnings(action="ignore"):
        import megatron.core.models.gpt  # noqa: F401


def with_engines(
    runtimes: dict[str, Runtime], cases: dict[str, Pretrain], folder: Path, given: Inputs, leave_at: int = 0
) -> dict[str, dict[str, Metrics]]:
    """`pretrainings` with one runtime after the other, each into folder/<name>."""
    folder.mkdir(exist_ok=True)
    return {
        name: with_engine(cases, runtime, folder / name, given, leave_at)
        for name, runtime in runtimes.items()
    }


def with_engine(
    cases: dict[str, Pretrain], runtime: Runtime, folder: Path, given: Inputs, leave_at: int = 0
) -> dict[str, Metrics]:
    """`pretrainings`, with any engine."""
    with as_on_cuda(runtime.engine):
        return pretrainings(cases, runtime, folder, given, leave_at)


def as_on_cuda(engine: Recipe) -> AbstractContextManager[None]:
    return cuda_is_cpu() if plugin_name(engine) == "megatron" else nullcontext()


TIMEOUT = 120.0
STEPS = 10
HERE = SITE.model_copy(update={"micro_batch": 1, "checkpoint_seconds": 600.0})
"""Two micro-batches a step on two ranks that read; saved are the last step and the one at which ranks leave."""


def recipes(shapes: dict[str, Architecture]) -> dict[str, Pretrain]:
    """One for each shape, with AdamW; validated in between."""
    plain = recipe(STEPS).model_copy(update={"optimizer": AdamW(lr=0.01), "depth": 2, "validate_every": 4})
    return {name: plain.model_copy(update={"architecture": shape}) for name, shape in shapes.items()}


def agree(reference: Path, folder: Path, name: str, rel: float = 1e-5) -> None:
    """The same losses and gradient norms."""
    found, wanted = curve(folder, name), curve(reference, name)
    for step, (mine, theirs) in enumerate(zip(found, wanted, strict=True)):
        assert mine == pytest.approx(theirs, rel=rel), f"{folder.name}, {name}, step {step + 1}"


def same_checkpoint(reference: Path, folder: Path, name: str) -> None:
    """The same tensors, up to rounding; transformers reads them, and gives the logits of our own decoder."""
    one, other = (load_file(where / f"{name}.part" / "model.safetensors") for where in (reference, folder))
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(
            other[key], one[key], rtol=1e-4, atol=1e-4, msg=f"{folder.name}, {name}: {key}"
        )
    ids = torch.arange(SEQ_LEN)[None] + 7
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(folder / f"{name}.part", dtype=torch.float32)(
            ids
        ).logits
        ours = load_decoder(reference / f"{name}.part")(ids)
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3)


def hands_over(
    case: dict[str, Pretrain], runtimes: Sequence[Runtime], reference: Path, folder: Path, given: Inputs
) -> None:
    """Each of three runtimes takes some steps of the same training on two ranks, native on one the last ones."""
    (name,) = case
    for number, (where, last) in enumerate(zip(runtimes, (3, 5, 7), strict=True)):
        with pytest.raises(SystemExit):
            launch(with_engine, (case, where, folder / str(number), given, last), 2, TIMEOUT)
        shutil.copytree(folder / str(number), folder / str(number + 1))
    said = pretrainings(case, HERE, folder / "3", given)[name]["messages"]
    assert f"continuing pretrain at step 7 of {STEPS}" in " ".join(said)
    agree(reference, folder / "3", name)


def anneals_both_ways(case: Pretrain, runtime: Runtime, folder: Path, given: Inputs) -> None:
    """The runtime's engine on two ranks goes on from native's stable checkpoint, and native from the engine's."""
    stable = {"run": case.model_copy(update={"schedule": "wsd", "decay_fraction": 0.4})}
    pretrainings(stable, HERE, folder / "native", given)
    launch(with_engine, (stable, runtime, folder / "other", given), 2, TIMEOUT)

    def anneal(of: str) -> dict[str, Pretrain]:
        start = str(folder / of / "run.part" / "stable")
        return {"run": case.model_copy(update={"start": start, "warmup_fraction": 0.0, "optimizer": AdamW()})}

    pretrainings(anneal("native"), HERE, folder / "native-native", given)
    pretrainings(anneal("other"), HERE, folder / "other-native", given)
    launch(with_engine, (anneal("native"), runtime, folder / "native-other", given), 2, TIMEOUT)
    agree(folder / "native-native", folder / "other-native", "run", rel=1e-4)
    agree(folder / "native-native", folder / "native-other", "run")


def nothing_stays(engines: dict[str, Any], precision: Precision, layout: Layout) -> None:
    """A gradient that was forgotten or isn't a number leaves nothing behind; in bf16, too, the others are native's."""
    found = launch(repeated, (engines | {"native": Native()}, precision, layout), 2, TIMEOUT)
    native = found["native"][0]
    for name, (first, again, after_nan, moved) in found.items():
        assert first == pytest.approx(native, rel=3e-2 if precision == "bf16" else 1e-5), name
        assert again == pytest.approx(first, rel=1e-6), name
        assert after_nan == pytest.approx(first, rel=1e-6), name
        assert not moved, name


def one_rank(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """`function` as it is called where there are no ranks."""
    dist.destroy_process_group()
    return function(*arguments)


Pair = tuple[float, float]


def plain_loss(model: Decoder, batch: TokenBatch) -> tuple[Tensor, StepMetrics]:
    return token_loss(model, batch), {}


def repeated(
    engines: dict[str, Any], precision: Precision, layout: Layout
) -> dict[str, tuple[Pair, Pair, Pair, list[str]]]:
    """What each engine says of one step's gradient: at once, again, and after one that isn't a number; what moved."""
    hardware, found = choose_hardware(HERE, precision), {}
    world = current_context(layout, hardware.device)
    config = Qwen3(d_model=16, n_heads=2).config(2, vocab_size=65, max_seq_len=SEQ_LEN)
    rows = torch.randint(64, (2, 1, SEQ_LEN), generator=torch.Generator().manual_seed(world.dp_rank))
    batches = [
        TokenBatch(row, row.roll(-1), torch.zeros_like(row), torch.full(row.shape, 0.01)) for row in rows
    ]
    faulty = [replace(batch, weights=batch.weights * torch.nan) for batch in batches]
    for name, engine in engines.items():
        with as_on_cuda(engine):
            with torch.device("meta"):
                model = Decoder(config)
            first = partial(model.init_tensor, seed=0)
            job = EngineSpec(model, first, hardware, world, layout, AdamW(lr=0.01).build, plain_loss, 1.0)
            learner = engine.prepare(job)
            before = learner.snapshot().tensors
            said = [learner.forward_backward(of) for of in (batches, batches, faulty, batches)]
            assert math.isnan(said[2]["loss"]) and not math.isfinite(said[2]["grad_norm"])
            learner.zero_grad()
            after = learner.snapshot().tensors
        first, again, _, last = [(one["loss"], one["grad_norm"]) for one in said]
        moved = [key for key in before if not torch.equal(local(before[key]), local(after[key]))]
        found[name] = first, again, last, moved
    return found
