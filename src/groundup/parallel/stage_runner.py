"""A stage in several ranks: the pipeline runs in one process, and what can share its work in as many as the site has.

in:  a stage function with its recipe, site, work and inputs
out: its metrics, as rank 0 returns them
"""

import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from groundup.core.progress import Reporter
from groundup.core.recipe import Recipe
from groundup.core.runtime import Site
from groundup.core.stage import Artifact, Metrics, Work, work
from groundup.parallel.context import check
from groundup.parallel.external_launch import Cluster
from groundup.parallel.launcher import launch


def ranks_of(site: Site) -> int:
    """How many ranks a training has on this machine: what the site says, else one per GPU, or one."""
    return site.ranks or (torch.cuda.device_count() if site.device != "cpu" else 0) or 1


def run_stage(
    function: Callable[..., Metrics], recipe: Recipe, site: Site, out: Work, inputs: dict[str, Artifact],
    cluster: Cluster | None = None,
) -> Metrics:  # fmt: skip
    """Call a stage here; where it knows how to share its work, in all ranks of the cluster, or in the site's own."""
    ranks = cluster.place.local_ranks if cluster else ranks_of(site)
    if not function.stage_ranks:  # type: ignore[attr-defined]
        return function(recipe, site, out, **inputs)
    if site.layout != "auto":
        check(site.layout, cluster.place.ranks if cluster else ranks)
    if ranks == 1 and cluster is None:
        return function(recipe, site, out, **inputs)
    threads = max(1, (site.threads or len(os.sched_getaffinity(0))) // ranks)
    site = site.model_copy(update={"threads": threads})
    arguments = (function, recipe, site, out.path, inputs, out.quiet)
    if cluster is not None:
        count = cluster.place.ranks
        out.say(f"{count} rank{'s' if count > 1 else ''} of a cluster, {ranks} on this machine")
        return cluster.lead(_stage_on_a_rank, arguments)
    out.say(f"{ranks} ranks of {threads} thread{'s' if threads > 1 else ''} each")
    return launch(_stage_on_a_rank, arguments, ranks, site.rank_timeout, out.say)


def _stage_on_a_rank(
    function: Callable[..., Metrics],
    recipe: Recipe,
    site: Site,
    part: Path,
    inputs: dict[str, Artifact],
    quiet: bool,
) -> Metrics:
    leads = dist.get_rank() == 0
    out = work(part, Reporter(quiet=quiet or not leads), site, keeps_log=leads)
    try:
        return function(recipe, site, out, **inputs)
    finally:
        out.close_log()
