"""What it costs to train on several ranks: two ranks of one thread each against one, for every axis of a layout.

in:  nothing; rows are made up
out: a table in the terminal; FOLDER/scaling.json

    .venv/bin/python benchmarks/scaling.py FOLDER

The contenders take turns, --rounds times, each in processes of its own; ratios are taken within a round, medians over
all. A step has --rows rows per rank that reads its own; where ranks share rows, it has as many as on one rank, and
half the time is what one hopes for. Efficiency: tokens/s of two ranks over twice those of one.

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

from groundup.core.site import Layout, Site
from groundup.model.architectures.llama import Llama
from groundup.model.decoder import Decoder
from groundup.model.losses import chunk_with_gradient
from groundup.parallel.engines import Job
from groundup.parallel.engines.native import Native
from groundup.parallel.hardware import choose, compiled
from groundup.parallel.ranks import launch
from groundup.parallel.world import ALONE, here
from groundup.train.batches import TokenBatch, own_positions
from groundup.train.checkpoints import Progress, conditions, snapshot, write_state
from groundup.train.guard import Guard
from groundup.train.optimizers.muon import Muon
from groundup.train.step import Stepper

LAYOUTS = {
    "one rank": (1, Layout()),
    "2 ranks, shard (FSDP2)": (2, Layout()),
    "2 ranks, replicate": (2, Layout(replicate=2)),
    "2 ranks, tensor": (2, Layout(tensor=2)),
    "2 ranks, context": (2, Layout(context=2)),
    "2 ranks, pipeline (1F1B)": (2, Layout(pipeline=2)),
    "2 ranks, pipeline (interleaved)": (2, Layout(pipeline=2, schedule="interleaved")),
    "2 ranks, pipeline (zero-bubble)": (2, Layout(pipeline=2, schedule="zero_bubble")),
}
WARM_UP = 3
"""Steps that aren't timed: kernels are compiled in the first."""


def main() -> None:
    arguments = _arguments()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in LAYOUTS}
    for _ in range(arguments.rounds):
        for name, (ranks, layout) in LAYOUTS.items():
            shape = (arguments.depth, arguments.width, arguments.rows, arguments.steps)
            found[name].append(launch(measured, (layout, *shape), ranks, 600.0))
            print(f"{name}: {found[name][-1]['tokens_per_second']:,.0f} tokens/s", flush=True)
    one = found["one rank"]
    rows, stalls = [], []
    for name, (ranks, _) in LAYOUTS.items():
        speeds = [run["tokens_per_second"] for run in found[name]]
        shares = [
            speed / alone["tokens_per_second"] / ranks for speed, alone in zip(speeds, one, strict=True)
        ]
        rows.append([name, f"{statistics.median(speeds):,.0f}", f"{statistics.median(shares):.2f}",
                     f"{min(shares):.2f} to {max(shares):.2f}"])  # fmt: skip
        middle = {key: statistics.median(run[key] for run in found[name]) for key in found[name][0]}
        stalls.append([name, *(f"{1000 * middle[key]:.0f}" for key in ("step", "stall", "write")),
                       f"{middle['stall'] / middle['step']:.1%}"])  # fmt: skip
    print("\n" + table(["", "tokens/s", "efficiency", "lowest to highest"], rows))
    print("\n" + table(["", "step, ms", "stall, ms", "write, ms", "stall of a step"], stalls))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "scaling.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measured(layout: Layout, depth: int, width: int, rows: int, steps: int) -> dict[str, float]:
    """What one of the ranks measures: tokens/s of all together, seconds of a step, of a state's copy and its write."""
    hardware = choose(Site(threads=1, device="cpu"))
    world = here(layout, hardware.device) if dist.get_world_size() > 1 else ALONE
    with torch.device("cpu" if world is ALONE else "meta"):
        model = Decoder(Llama(d_model=width).config(depth, 4096, 512))
    if world is ALONE:
        model.init_weights(0)
    kernel = compiled(chunk_with_gradient, hardware)

    def loss(model: Any, mine: TokenBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor | float]]:
        hidden = model.hidden(mine.ids, mine.segments, positions=mine.positions).flatten(0, 1)
        flat = mine.targets.flatten(), mine.weights.flatten()
        return model.cross_entropy(hidden, model.head_weight, *flat, kernel)[0], {}

    read = batch(token_rows(rows, 513, 4096, seed=world.reader), hardware.device)
    weighed = _weighed(read, world.readers)
    # As many micro-batches as two ranks of a pipeline need to be busy most of the time.
    parts = 4 if world.pipeline > 1 else 1
    mine = [own_positions(part, world) for part in _cut(weighed, parts)]
    guard = Guard()
    build = Muon().resolved(width).build
    first = partial(model.first_weight, seed=0)
    learner = Native().prepare(Job(model, first, hardware, world, layout, build, loss, 1.0))
    stepper = Stepper(learner, guard, spikes=False)
    seconds = []
    for step in range(WARM_UP + steps):
        began = time.perf_counter()
        stepper.take(step, mine)
        seconds.append(time.perf_counter() - began)
    step_seconds = statistics.median(seconds[WARM_UP:])
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        state = snapshot(learner, Progress(step=steps), guard, conditions(hardware.device))
        stalled = time.perf_counter() - began
        shared = Path(world.told_by_leader(lambda: folder))
        write_state(shared, state, world)
        written = time.perf_counter() - began - stalled
        world.any(True)  # nobody's folder goes before all have written
    tokens = rows * 512 * world.readers
    return {
        "tokens_per_second": tokens / step_seconds,
        "step": step_seconds,
        "stall": stalled,
        "write": written,
    }


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rows", type=int, default=8, help="rows of a step for each rank that reads its own")
    parser.add_argument("--steps", type=int, default=12)
    return parser.parse_args()


if __name__ == "__main__":
    main()
