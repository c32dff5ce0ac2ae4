"""Scaling efficiency on two ranks of one thread each against one, for every axis of a layout.

in:  nothing; tokens are random
out: tables in the terminal; FOLDER/scaling.json

    .venv/bin/python benchmarks/scaling.py FOLDER

For every layout two processes take turns, step by step: the first by itself, then both together. A step has --rows
rows per rank that reads its own; where ranks share rows, it has as many as on one rank, and half the time is what one
hopes for. Efficiency: tokens/s of two ranks over twice those of one, of two steps that follow each other; the median
over all, with its quartiles. Two ranks that each train a model of their own and exchange nothing say what the machine
allows.

A second table says how long a state stalls the training: the copy that is made between two steps. The rest is written
by a thread while the training goes on.
"""

import argparse
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from learning_runs import table
from trainee import Batch, batch, token_rows

from groundup.core.runtime import Layout, Runtime
from groundup.model.architectures.llama import Llama
from groundup.model.decoder import Decoder
from groundup.model.losses import chunk_with_gradient
from groundup.parallel.context import SINGLE, ParallelContext, current_context
from groundup.parallel.engine import EngineSpec
from groundup.parallel.engines.native import Native
from groundup.parallel.hardware import choose_hardware, compiled
from groundup.parallel.launcher import launch
from groundup.train.anomaly import AnomalyGuard
from groundup.train.batches import TokenBatch, own_positions
from groundup.train.optimizers.muon import Muon
from groundup.train.resume_state import Progress, current_environment, snapshot, write_state
from groundup.train.step import Stepper

LAYOUTS: dict[str, Layout | None] = {
    "each by itself": None,
    "shard (FSDP2)": Layout(),
    "replicate": Layout(replicate=2),
    "tensor": Layout(tensor=2),
    "context": Layout(context=2),
    "pipeline (1F1B)": Layout(pipeline=2),
    "pipeline (interleaved)": Layout(pipeline=2, schedule="interleaved"),
    "pipeline (zero-bubble)": Layout(pipeline=2, schedule="zero_bubble"),
}
"""Layouts of two ranks; None = two independent processes."""
WARM_UP = 2
"""Untimed warmup steps; the first compiles kernels."""


def main() -> None:
    arguments = _arguments()
    rows, stalls, results = [], [], {}
    for name, layout in LAYOUTS.items():
        shape = (arguments.depth, arguments.width, arguments.rows, arguments.steps)
        run = results[name] = launch(measured, (layout, *shape), 2, 600.0)
        low, middle, high = statistics.quantiles(run["efficiency"], n=4)
        speeds = [run["tokens"][who] / statistics.median(run[who]) for who in ("alone", "together")]
        rows.append(
            [name, *(f"{speed:,.0f}" for speed in speeds), f"{middle:.2f}", f"{low:.2f} to {high:.2f}"]
        )
        print(f"{name}: efficiency {middle:.2f}", flush=True)
        if layout is not None:
            step = statistics.median(run["together"])
            times = [f"{1000 * seconds:.0f}" for seconds in (step, run["stall"], run["write"])]
            stalls.append([name, *times, f"{run['stall'] / step:.1%}"])
    print("\n" + table(["", "tokens/s alone", "of both", "efficiency", "quartiles"], rows))
    print("\n" + table(["", "step, ms", "stall, ms", "write, ms", "stall of a step"], stalls))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "scaling.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def measured(layout: Layout | None, depth: int, width: int, rows: int, steps: int) -> dict[str, Any]:
    """Measurements of one of two ranks: seconds per step, alone and together, and of copying and writing a state."""
    runtime = Runtime(threads=1, device="cpu")
    alone = TimedTraining(runtime, SINGLE, depth, width, rows)
    if layout is None:
        both = alone
    else:
        world = current_context(layout, torch.device("cpu"))
        both = TimedTraining(runtime.model_copy(update={"layout": layout}), world, depth, width, rows)
    readers = 2 if layout is None else both.world.dp_size
    seconds: dict[str, list[float]] = {"alone": [], "together": []}
    for step in range(WARM_UP + steps):
        dist.barrier()
        if dist.get_rank() == 0:
            seconds["alone"].append(alone.seconds(step))
        dist.barrier()
        slowest = torch.tensor(both.seconds(step))
        dist.all_reduce(slowest, dist.ReduceOp.MAX)
        seconds["together"].append(slowest.item())
    pairs = list(zip(seconds["alone"], seconds["together"], strict=False))[WARM_UP:]
    saved = {} if layout is None else both.save(steps)
    return saved | {
        "alone": [one for one, _ in pairs],
        "together": [two for _, two in pairs],
        "tokens": {"alone": rows * 512, "together": rows * 512 * readers},
        "efficiency": [readers * one / two / 2 for one, two in pairs],
    }


class TimedTraining:
    """A model trained on sequences of 512 tokens, alone or with other ranks."""

    def __init__(self, runtime: Runtime, world: ParallelContext, depth: int, width: int, rows: int) -> None:
        self._hardware = hardware = choose_hardware(runtime)
        self.world = world
        assert isinstance(runtime.layout, Layout)
        with torch.device("cpu" if world.mesh is None else "meta"):
            model = Decoder(Llama(d_model=width).config(depth, 4096, 512))
        if world.mesh is None:
            model.init_weights(0)
        kernel = compiled(chunk_with_gradient, hardware)

        def loss(model: Any, batch: TokenBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
            hidden = model.hidden(batch.ids, batch.segments, positions=batch.positions).flatten(0, 1)
            flat = batch.targets.flatten(), batch.weights.flatten()
            return model.cross_entropy(hidden, model.head_weight, *flat, kernel)[0], {}

        read = batch(token_rows(rows, 513, 4096, seed=world.dp_rank), hardware.device)
        # As many micro-batches as two ranks of a pipeline need to be busy most of the time.
        parts = _cut(_weighed(read, world.dp_size), 4 if world.pipeline > 1 else 1)
        self._local_batches = [own_positions(part, world) for part in parts]
        self._guard = AnomalyGuard()
        self.model = model
        build, first = Muon().resolved(width).build, partial(model.init_tensor, seed=0)
        job = EngineSpec(model, first, hardware, world, runtime.layout, build, loss, 1.0)
        self._learner = Native().prepare(job)
        self._stepper = Stepper(self._learner, self._guard, detect_spikes=False)

    def seconds(self, step: int) -> float:
        """Seconds of one step."""
        began = time.perf_counter()
        self._stepper.train_step(step, self._local_batches)
        return time.perf_counter() - began

    def save(self, step: int) -> dict[str, float]:
        """Seconds to copy a resume state and to write it."""
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            reached = current_environment(self._hardware.device)
            state = snapshot(self._learner, Progress(step=step), self._guard, reached)
            stalled = time.perf_counter() - began
            write_state(Path(self.world.broadcast_object(lambda: folder)), state, self.world)
            written = time.perf_counter() - began - stalled
            self.world.any(True)  # nobody's folder goes before all have written
        return {"stall": stalled, "write": written}


def _weighed(rows: Batch, readers: int) -> TokenBatch:
    weights = torch.ones(rows.ids.shape) / rows.ids.numel() / readers
    return TokenBatch(rows.ids, rows.targets, rows.segments, weights)


def _cut(batch: TokenBatch, parts: int) -> list[TokenBatch]:
    tensors = (batch.ids, batch.targets, batch.segments, batch.weights)
    return [TokenBatch(*part) for part in zip(*(tensor.chunk(parts) for tensor in tensors), strict=True)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rows", type=int, default=8, help="sequences per step and data-parallel rank")
    parser.add_argument("--steps", type=int, default=8)
    return parser.parse_args()


if __name__ == "__main__":
    main()
