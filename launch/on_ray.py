"""Ray: one rank per GPU of an existing cluster.

    python launch/on_ray.py handbook.toml                      # on a machine of the cluster
    ray job submit -- python launch/on_ray.py handbook.toml    # from elsewhere

RANKS is the number of ranks (default: all GPUs, or all CPUs of a cluster without GPUs). WORKSPACE and the current
folder must be shared by all machines at the same path. Arguments after the blueprint are passed to `groundup run`.
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
USER_ERROR, INTERRUPTED = 2, (128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit statuses that end the run; any other failure restarts the ranks."""


@ray.remote(max_restarts=0)
class Rank:
    """An actor that runs one rank."""

    def node(self) -> str:
        """The id of the rank's machine."""
        return ray.get_runtime_context().get_node_id()

    def rendezvous(self) -> dict[str, str]:
        """A rendezvous address on this machine, for rank 0."""
        with socket.socket() as free:
            free.bind(("", 0))
            return {"MASTER_ADDR": get_node_ip_address(), "MASTER_PORT": str(free.getsockname()[1])}

    def run(self, folder: str, arguments: list[str], variables: dict[str, str]) -> int:
        """Run `groundup run` with torchrun's variables set; return its exit status."""
        os.chdir(folder)
        os.environ.update(variables)
        from groundup.cli import main

        try:
            main(["run", *arguments])
        except SystemExit as exit:
            return exit.code if isinstance(exit.code, int) else 1
        return 0


def reserve() -> PlacementGroup:
    """A placement group for all ranks; waits until it is available."""
    while True:
        resources = ray.cluster_resources()
        kind = "GPU" if resources.get("GPU") else "CPU"
        count = int(os.environ.get("RANKS") or resources[kind])
        group = placement_group([{kind: 1}] * count)
        if group.wait(60):
            return group
        remove_placement_group(group)
        print(f"waiting for {count} free {kind}s", file=sys.stderr)


def start(arguments: list[str]) -> int:
    """Run all ranks once; return the exit status of the first that failed, or 0."""
    group = reserve()
    on_gpus = "GPU" in group.bundle_specs[0]
    strategy = PlacementGroupSchedulingStrategy(group)
    actor = Rank.options(num_gpus=int(on_gpus), num_cpus=int(not on_gpus), scheduling_strategy=strategy)
    ranks = [actor.remote() for _ in group.bundle_specs]
    try:
        nodes = dict(zip(ranks, ray.get([rank.node.remote() for rank in ranks]), strict=True))
        ranks.sort(key=nodes.__getitem__)  # ranks of one machine are consecutive
        address = ray.get(ranks[0].rendezvous.remote())
        folder, environments = str(Path.cwd()), variables([nodes[rank] for rank in ranks])
        return first_failure(
            {
                rank.run.remote(folder, arguments, address | environment): number
                for number, (rank, environment) in enumerate(zip(ranks, environments, strict=True))
            }
        )
    finally:
        for rank in ranks:
            ray.kill(rank)
        remove_placement_group(group)


def variables(nodes: list[str]) -> list[dict[str, str]]:
    """torchrun's variables for each rank. nodes: the machine of each rank."""
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
    """Wait until all ranks have ended or the first has failed; return its exit status, or 0."""
    pending = list(running)
    while pending:
        (done,), pending = ray.wait(pending)
        try:
            status = ray.get(done)
        except RayError as error:
            print(f"rank {running[done]} died: {str(error).splitlines()[0]}", file=sys.stderr)
            return 1
        if status:
            print(f"rank {running[done]} exited with status {status}", file=sys.stderr)
            return status
    return 0


def main() -> int:
    """Run the ranks; restart them on the remaining machines when one fails."""
    ray.init(address="auto")
    arguments = [*sys.argv[1:], "--workspace", os.environ.get("WORKSPACE", "workspace")]
    for attempt in range(RESTARTS + 1):
        status = start(arguments)
        if status in (0, USER_ERROR, *INTERRUPTED):
            break
        if attempt < RESTARTS:
            print("restarting all ranks from the last checkpoint", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
