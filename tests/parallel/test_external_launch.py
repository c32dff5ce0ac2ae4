"""Ranks that torchrun or Slurm has started: recognised by what these say."""

import pytest

from groundup.core.errors import GroundupError
from groundup.parallel.external_launch import PORT, detect_launch, first_host
from groundup.parallel.rendezvous import RankAddress

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node-a",
            "MASTER_PORT": "1234"}  # fmt: skip
SRUN = {"SLURM_JOB_ID": "70042", "SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8",
        "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
        "SLURM_STEP_NODELIST": "gpu[003-004]"}  # fmt: skip


def test_a_process_by_itself_is_no_rank() -> None:
    assert detect_launch({}) is None
    assert detect_launch({"WORLD_SIZE": "1", "RANK": "0"}) is None
    assert detect_launch({"SLURM_JOB_ID": "7"}) is None  # a job's script, not a step of srun


def test_torchruns_variables_say_who_and_where() -> None:
    assert detect_launch(TORCHRUN) == RankAddress(3, 8, 1, 2, "node-a", 1234)


def test_the_last_rank_that_torchrun_has_left_is_one_of_a_cluster() -> None:
    alone = {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "TORCHELASTIC_RUN_ID": "x",
    }
    assert detect_launch(TORCHRUN | alone) == RankAddress(0, 1, 0, 1, "node-a", 1234)


def test_slurms_variables_say_who_and_where() -> None:
    assert detect_launch(SRUN) == RankAddress(5, 8, 1, 4, "gpu003", PORT + 42)
    assert detect_launch(SRUN | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "77"}) == RankAddress(
        5, 8, 1, 4, "10.0.0.1", 77
    )


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("gpu003", "gpu003"), ("gpu003,gpu007", "gpu003"), ("gpu[003-007,012],login", "gpu003"),
     ("a-b[7,9]", "a-b7"), ("rack1.node2", "rack1.node2")],
)  # fmt: skip
def test_the_first_host_of_slurms_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


@pytest.mark.parametrize(
    ("said", "message"),
    [(TORCHRUN | {"LOCAL_RANK": "x"}, "started by torchrun, but the variable LOCAL_RANK is 'x'"),
     ({key: value for key, value in SRUN.items() if key != "SLURM_PROCID"},
      "started by srun, but the variable SLURM_PROCID is not set")],
)  # fmt: skip
def test_half_an_environment_is_named(said: dict[str, str], message: str) -> None:
    with pytest.raises(GroundupError, match=message):
        detect_launch(said)
