"""Ray: a rank for each GPU of a cluster that is there already.

    python launch/on_ray.py handbook.toml                      # on a machine of the cluster
    ray job submit -- python launch/on_ray.py handbook.toml    # from elsewhere

RANKS says how many (all GPUs, or all CPUs of a cluster without GPUs), WORKSPACE where. All machines must see it, and
the current folder, under the same path. Everything after the blueprint is passed on to `groundup run`.
"""

import os
import signal
import socket
import sys
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util import get_node_ip_address
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

RESTARTS = int(os.environ.get("RESTARTS", "3"))
MISTAKE, LEAVING = 2, (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit statuses after which the ranks are not started again."""


@ray.remote(max_restarts=0)
class Rank:
    """A process that becomes a rank."""

    def node(self) -> str:
        """Which machine it is on."""
        return ray.get_runtime_context().get_node_id()

    def meeting(self) -> dict[str, str]:
        """Where ranks can meet, if this is rank 0."""
        with socket.socket() as free:
            free.bind(("", 0))
            return {"MASTER_ADDR": get_node_ip_address(), "MASTER_PORT": str(free.getsockname()[1])}

    def run(self, folder: str, arguments: list[str], variables: dict[str, str]) -> int:
        """What `groundup` does on the command line, with torchrun's variables set; returns its exit status."""
        os.chdir(folder)
        os.environ.update(variables)
        from groundup.cli import main

        try:
            main(["run", *arguments])
        except SystemExit as leaving:
            return leaving.code if isinstance(leaving.code, int) else 1
        return 0


def room() -> PlacementGroup:
    """A place for every rank at once; waits until there is one."""
    while True:
        has = ray.cluster_resources()
        kind = "GPU" if has.get("GPU") else "CPU"
        count = int(os.environ.get("RANKS") or has[kind])
        group = placement_group([{kind: 1}] * count)
        if group.wait(60):
            return group
        remove_placement_group(group)
        print(f"waiting for {count} free {kind}s", file=sys.stderr)


def start(arguments: list[str]) -> int:
    """Run all ranks once; returns the status of the first that ended badly, or 0."""
    group = room()
    on_gpus = "GPU" in group.bundle_specs[0]
    there = PlacementGroupSchedulingStrategy(group)
    each = Rank.options(num_gpus=int(on_gpus), num_cpus=int(not on_gpus), scheduling_strategy=there)
    ranks = [each.remote() for _ in group.bundle_specs]
    try:
        nodes = dict(zip(ranks, ray.get([rank.node.remote() for rank in ranks]), strict=True))
        ranks.sort(key=nodes.__getitem__)  # ranks of one machine stand side by side
        meeting = ray.get(ranks[0].meeting.remote())
        folder, places = str(Path.cwd()), variables([nodes[rank] for rank in ranks])
        return first_failure(
            {
                rank.run.remote(folder, arguments, meeting | place): number
                for number, (rank, place) in enumerate(zip(ranks, places, strict=True))
            }
        )
    finally:
        for rank in ranks:
            ray.kill(rank)
        remove_placement_group(group)


def variables(nodes: list[str]) -> list[dict[str, str]]:
    """For each rank what torchrun would set. nodes: the machine of each."""
    return [
        {
            "RANK": str(rank),
            "WORLD_SIZE": str(len(nodes)),
            "LOCAL_RANK": str(rank - nodes.index(node)),
            "LOCAL_WORLD_SIZE": str(nodes.count(node)),
        }
        for rank, node in enumerate(nodes)
    ]


def first_failure(running: dict[ray.ObjectRef, int]) -> int:
    """Wait until all are done, or the first has ended badly."""
    left = list(running)
    while left:
        (done,), left = ray.wait(left)
        try:
            status = ray.get(done)
        except RayError as error:
            print(f"rank {running[done]} died: {str(error).splitlines()[0]}", file=sys.stderr)
            return 1
        if status:
            print(f"rank {running[done]} left with status {status}", file=sys.stderr)
            return status
    return 0


def main() -> int:
    """Start the ranks, and again on what is left of the cluster when one of them fails."""
    ray.init(address="auto")
    arguments = [*sys.argv[1:], "--workspace", os.environ.get("WORKSPACE", "workspace")]
    for attempt in range(RESTARTS + 1):
        status = start(arguments)
        if status in (0, MISTAKE, *LEAVING):
            break
        if attempt < RESTARTS:
            print("starting all ranks again from what was saved last", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
