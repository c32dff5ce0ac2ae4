"""The launch files of the guides, started as written, on stand-ins for what this machine doesn't have."""

import os
import re
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from cluster_helpers import (
    BIN,
    LAUNCH,
    descendants,
    free_port,
    one_process,
    pretrained,
    run,
    run_together,
    started,
    texts,
    wait_until,
    workspace,
)

GUIDES = LAUNCH.parent / "docs" / "guides"
ARGUMENTS = ["tiny.toml", "--until", "pretrain"]
SRUN = """#!{python}
# What srun does: start SLURM_NTASKS tasks, tell each its place, and end all where one ends badly.
import os, subprocess, sys, time
assert sys.argv[1] == "--kill-on-bad-exit=1"
count = os.environ["SLURM_NTASKS"]
step = {{"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": count, "SLURM_STEP_TASKS_PER_NODE": count,
        "SLURM_STEP_NODELIST": "localhost"}}
tasks = [subprocess.Popen(sys.argv[2:], env={{**os.environ, **step, "SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)}})
         for n in range(int(count))]
while any(task.poll() is None for task in tasks) and not any(task.poll() for task in tasks):
    time.sleep(0.05)
if any(task.poll() for task in tasks):
    [task.kill() for task in tasks]
sys.exit(max(status if status >= 0 else 128 - status for status in [task.wait() for task in tasks]))
"""
SCONTROL = """#!/bin/bash
echo "$@" >> scontrol.log
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return texts(tmp_path_factory.mktemp("launch"))


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Any]:
    """The metrics of one process."""
    return one_process(folder)


def check(folder: Path, name: str, expected: dict[str, Any]) -> None:
    found = pretrained(folder / name)
    assert found["steps"] == expected["steps"] == 10
    assert found["val_bpb"] == pytest.approx(expected["val_bpb"], rel=1e-2)


def blocks(page: Path) -> list[str]:
    """The code of a guide, block after block."""
    return re.findall(r"```\w*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(
    ("page", "file"),
    [("one-gpu", "one-gpu.sh"), ("eight-gpus", "eight-gpus.sh"), ("several-machines", "torchrun.sh"),
     ("slurm", "slurm.sbatch"), ("ray-and-kubernetes", "on_ray.py"),
     ("ray-and-kubernetes", "kubernetes.yaml")],
)  # fmt: skip
def test_a_guide_shows_the_launch_file_as_it_is(page: str, file: str) -> None:
    assert (LAUNCH / file).read_text(encoding="utf-8") in blocks(GUIDES / f"{page}.md")


def test_every_launch_file_is_shown_and_started() -> None:
    shown = {block for page in GUIDES.glob("*.md") for block in blocks(page)}
    assert [
        path.name for path in sorted(LAUNCH.iterdir()) if path.is_file() and path.read_text() not in shown
    ] == []


@pytest.mark.cluster
@pytest.mark.parametrize(("file", "ranks"), [("one-gpu.sh", 1), ("eight-gpus.sh", 2)])
def test_one_machine(folder: Path, expected: dict[str, Any], file: str, ranks: int) -> None:
    here = workspace(folder, file)
    said = run([str(LAUNCH / file), *ARGUMENTS], folder, RANKS=str(ranks), WORKSPACE=here)
    assert ("2 ranks of" in said) == (ranks == 2)
    check(folder, here, expected)


@pytest.mark.cluster
def test_torchrun_with_two_agents(folder: Path, expected: dict[str, Any]) -> None:
    variables = {"HEAD": f"localhost:{free_port()}", "RANKS_PER_NODE": "1", "NODES": "2",
                 "WORKSPACE": workspace(folder, "torchrun")}  # fmt: skip
    said = run_together([[str(LAUNCH / "torchrun.sh"), *ARGUMENTS]] * 2, folder, [variables] * 2)
    assert "2 ranks of a cluster, 1 on this machine" in "".join(said)
    check(folder, "torchrun", expected)


@pytest.fixture
def slurm(folder: Path) -> dict[str, str]:
    """The variables of a batch job, and stand-ins for srun and scontrol."""
    commands = folder / "slurm-bin"
    commands.mkdir(exist_ok=True)
    for name, text in (("srun", SRUN.format(python=BIN / "python")), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(stat.S_IRWXU)
    return {"PATH": f"{commands}:{BIN}:/usr/bin:/bin", "SLURM_JOB_ID": str(free_port()), "SLURM_NTASKS": "2",
            "MASTER_PORT": str(free_port())}  # fmt: skip


@pytest.mark.cluster
def test_slurm_goes_on_after_a_dead_rank(
    folder: Path, expected: dict[str, Any], slurm: dict[str, str]
) -> None:
    here, log = workspace(folder, "slurm"), folder / "dead.log"
    command = ["/bin/bash", str(LAUNCH / "slurm.sbatch"), *ARGUMENTS]
    with started(command, folder, log, **slurm, WORKSPACE=here, SOON="0") as job:
        wait_until(lambda: "2 ranks of a cluster" in log.read_text(), "the training's begin")
        os.kill(descendants(job.pid)[-1], signal.SIGKILL)
        assert job.wait(60) == 128 + signal.SIGKILL
    assert (folder / "scontrol.log").read_text() == f"requeue {slurm['SLURM_JOB_ID']}\n"
    run(command, folder, **slurm, WORKSPACE=here)
    check(folder, here, expected)


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")
def test_ray(folder: Path, expected: dict[str, Any], ray_cluster: str) -> None:
    here = workspace(folder, "ray")
    command = [str(BIN / "python"), str(LAUNCH / "on_ray.py"), *ARGUMENTS]
    said = run(command, folder, RAY_ADDRESS=ray_cluster, WORKSPACE=here)
    assert "2 ranks of a cluster, 1 on this machine" in said
    check(folder, here, expected)


@pytest.mark.cluster
def test_kubernetes(folder: Path, expected: dict[str, Any]) -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with Ray and transformers")
    service, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    assert service["metadata"]["name"] == pod["subdomain"], "the pods' names are those of the service"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    (container,) = pod["containers"]
    written = {item["name"]: item["value"] for item in container["env"]}
    assert written["HEAD"].split(":")[0] == f"{job['metadata']['name']}-0.{pod['subdomain']}"
    assert written["NODES"] == f"1:{job['spec']['completions']}" == f"1:{job['spec']['parallelism']}"
    assert written["RANKS_PER_NODE"] == str(container["resources"]["limits"]["nvidia.com/gpu"])
    small = {"BLUEPRINT": "tiny.toml", "OPTIONS": "--until pretrain", "RANKS_PER_NODE": "1", "NODES": "2",
             "HEAD": f"localhost:{free_port()}", "WORKSPACE": workspace(folder, "kubernetes")}  # fmt: skip
    pods = [written | small | {"JOB_COMPLETION_INDEX": str(index)} for index in range(2)]
    run_together([[*container["command"], *container["args"]]] * 2, folder, pods)
    check(folder, "kubernetes", expected)
