"""Run a stage in this process, or in several ranks where the stage supports them.

in:  a stage with its recipe, runtime, context and inputs
out: its metrics, as rank 0 returns them
"""

import os
from pathlib import Path

import torch
import torch.distributed as dist

from groundup.core.os_errors import explain_os_errors
from groundup.core.progress import Reporter
from groundup.core.recipe import Recipe
from groundup.core.runtime import Runtime
from groundup.core.stage import Inputs, Metrics, Stage, StageContext, open_context
from groundup.parallel.context import check_layout
from groundup.parallel.external_launch import ExternalLaunch
from groundup.parallel.launcher import launch


def ranks_of(runtime: Runtime) -> int:
    """How many ranks a training has on this machine: what the runtime says, else one per GPU, or one."""
    return runtime.ranks or (torch.cuda.device_count() if runtime.device != "cpu" else 0) or 1


def run_stage(
    stage: Stage[...], recipe: Recipe, runtime: Runtime, context: StageContext, inputs: Inputs,
    cluster: ExternalLaunch | None = None,
) -> Metrics:  # fmt: skip
    """Call a stage in this process; one that supports ranks, in all ranks of the cluster or of the runtime."""
    ranks = cluster.place.local_ranks if cluster else ranks_of(runtime)
    if not stage.ranks:
        return stage(recipe, runtime, context, **inputs)
    if runtime.layout != "auto":
        check_layout(runtime.layout, cluster.place.ranks if cluster else ranks)
    if ranks == 1 and cluster is None:
        return stage(recipe, runtime, context, **inputs)
    threads = max(1, (runtime.threads or len(os.sched_getaffinity(0))) // ranks)
    runtime = runtime.model_copy(update={"threads": threads})
    arguments = (stage, recipe, runtime, context.path, inputs, context.quiet)
    if cluster is not None:
        count = cluster.place.ranks
        context.info(f"{count} rank{'s' if count > 1 else ''} of a cluster, {ranks} on this machine")
        return cluster.run_shared(_stage_on_a_rank, arguments)
    context.info(f"{ranks} ranks of {threads} thread{'s' if threads > 1 else ''} each")
    return launch(_stage_on_a_rank, arguments, ranks, runtime.rank_timeout, context.info)


def _stage_on_a_rank(
    stage: Stage[...],
    recipe: Recipe,
    runtime: Runtime,
    part: Path,
    inputs: Inputs,
    quiet: bool,
) -> Metrics:
    is_rank0 = dist.get_rank() == 0
    context = open_context(part, Reporter(quiet=quiet or not is_rank0), runtime, keeps_log=is_rank0)
    try:
        with explain_os_errors(part.stem, part):
            return stage(recipe, runtime, context, **inputs)
    finally:
        context.close_log()
