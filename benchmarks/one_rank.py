"""Overhead of FSDP2 on one rank: a model plain and sharded.

in:  nothing; tokens are random
out: milliseconds of a step either way, and the cost in percent

    .venv/bin/python benchmarks/one_rank.py                                        # on a CPU
    .venv/bin/python benchmarks/one_rank.py --depth 18 --width 2048 --rows 32      # on a GPU

Both take turns, step by step, in one process; the cost is that of two steps that follow each other, the median over
all with its quartiles. One rank trains plainly in a run: this says what FSDP2's own work is.
"""

import argparse
import statistics

import torch
import torch.distributed as dist
from scaling import WARM_UP, TimedTraining
from torch.distributed.device_mesh import init_device_mesh

from groundup.core.runtime import Runtime
from groundup.parallel.context import SINGLE, ParallelContext

AXES = ("pipeline", "replicate", "shard", "tensor")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    plain, sharded = costs(given.depth, given.width, given.rows, given.steps)
    low, middle, high = statistics.quantiles(
        [two / one - 1 for one, two in zip(plain, sharded, strict=True)], n=4
    )
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(
        f"{where}, PyTorch {torch.__version__}, {given.depth} layers x {given.width}, {given.rows} rows of 512 tokens"
    )
    steps = [f"{1000 * statistics.median(seconds):.1f}" for seconds in (plain, sharded)]
    print(
        f"plain {steps[0]} ms a step, sharded {steps[1]}; FSDP2 costs {middle:+.1%} ({low:+.1%} to {high:+.1%})"
    )


def costs(depth: int, width: int, rows: int, steps: int) -> tuple[list[float], list[float]]:
    """Seconds of every step, plain and sharded, in one process without a process group before or after."""
    cuda = torch.cuda.is_available()
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group("cuda:nccl,cpu:gloo" if cuda else "gloo", store=store, rank=0, world_size=1)
    mesh = init_device_mesh("cuda" if cuda else "cpu", (1,) * len(AXES), mesh_dim_names=AXES)
    runtime = Runtime(threads=0 if cuda else 1)
    both = [
        TimedTraining(runtime, world, depth, width, rows)
        for world in (SINGLE, ParallelContext(0, 1, mesh, None, None, None))
    ]
    seconds = [[trainee.seconds(step) for trainee in both] for step in range(WARM_UP + steps)][WARM_UP:]
    dist.destroy_process_group()
    return [one for one, _ in seconds], [two for _, two in seconds]


if __name__ == "__main__":
    main()
