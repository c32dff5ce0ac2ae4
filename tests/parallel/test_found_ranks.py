"""Ranks that torchrun or Slurm has started: recognised, and led by one of them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import GroundupError
from groundup.parallel.cluster import PORT, Place, first_host, found

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node-a",
            "MASTER_PORT": "1234"}  # fmt: skip
SRUN = {"SLURM_JOB_ID": "70042", "SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
        "SLURM_STEP_NODELIST": "gpu[003-004]"}  # fmt: skip


def test_a_process_by_itself_is_no_rank() -> None:
    assert found({}) is None
    assert found({"WORLD_SIZE": "1", "RANK": "0"}) is None
    assert found({"SLURM_JOB_ID": "7"}) is None  # a job's script, not a step of srun


def test_torchruns_variables_say_who_and_where() -> None:
    assert found(TORCHRUN) == Place(3, 8, 1, 2, "node-a", 1234)


def test_slurms_variables_say_who_and_where() -> None:
    assert found(SRUN) == Place(5, 8, 1, 4, "gpu003", PORT + 42)
    assert found(SRUN | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "77"}) == Place(5, 8, 1, 4, "10.0.0.1", 77)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("gpu003", "gpu003"), ("gpu003,gpu007", "gpu003"), ("gpu[003-007,012],login", "gpu003"),
     ("a-b[7,9]", "a-b7"), ("rack1.node2", "rack1.node2")],
)  # fmt: skip
def test_the_first_host_of_slurms_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


@pytest.mark.parametrize(
    ("said", "message"),
    [(TORCHRUN | {"LOCAL_RANK": "x"}, "rank of torchrun, but LOCAL_RANK is 'x'"),
     ({key: value for key, value in SRUN.items() if key != "SLURM_PROCID"},
      "rank of srun, but SLURM_PROCID is not set")],
)  # fmt: skip
def test_half_an_environment_is_named(said: dict[str, str], message: str) -> None:
    with pytest.raises(GroundupError, match=message):
        found(said)


BLUEPRINT = """
name = "tiny"
[[acquire.sources]]
use = "files"
paths = ["docs/*.txt"]
[tokenizer]
vocab_size = 400
[tokenize]
seq_len = 64
[pretrain]
depth = 2
tokens = 5120
batch_tokens = 512
precision = "fp32"
[pretrain.architecture]
use = "qwen3"
d_model = 32
[site]
device = "cpu"
compile = "off"
"""
GROUNDUP = str(Path(sys.executable).with_name("groundup"))
RUN = ["run", "tiny.toml", "--until", "pretrain", "--workspace"]


@pytest.fixture
def blueprint(tmp_path: Path) -> Path:
    """A folder with a blueprint and what it reads."""
    (tmp_path / "docs").mkdir()
    for n in range(60):
        text = (
            f"Number {n} is a fine number. Its square is {n * n}, and its double is {2 * n}. It is said that {n} likes "
            f"{n + 1} more than {n + 2}. The end of the story of {n}."
        )
        (tmp_path / "docs" / f"{n}.txt").write_text(text)
    (tmp_path / "tiny.toml").write_text(BLUEPRINT)
    return tmp_path


def pretrained(workspace: Path) -> dict[str, Any]:
    (manifest,) = (workspace / "artifacts").glob("pretrain-*/manifest.json")
    metrics: dict[str, Any] = json.loads(manifest.read_text())["metrics"]
    return metrics


@pytest.mark.slow
def test_torchrun_and_srun_give_what_one_process_gives(blueprint: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    one = subprocess.Popen([GROUNDUP, *RUN, "one"], cwd=blueprint)
    assert one.wait(120) == 0
    agent = subprocess.run([*torchrun, GROUNDUP, *RUN, "torchrun"], cwd=blueprint, timeout=120, check=False)
    assert agent.returncode == 0
    ours = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NODELIST": "localhost"}
    tasks = [
        subprocess.Popen(
            [GROUNDUP, *RUN, "srun"], cwd=blueprint,
            env={**os.environ, **SRUN, **ours, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
        )
        for rank in range(2)
    ]  # fmt: skip
    assert [task.wait(120) for task in tasks] == [0, 0]
    expected = pretrained(blueprint / "one")
    for workspace in ("torchrun", "srun"):
        found = pretrained(blueprint / workspace)
        assert found["steps"] == expected["steps"] == 10
        assert found["val_bpb"] == pytest.approx(expected["val_bpb"], rel=1e-2)
