"""kill -9 of one rank, or of all of them with their parent, at any moment: the run goes on to the same weights."""

import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from groundup.core.runtime import Layout, Runtime
from groundup.parallel.launcher import launch
from ranks_helpers import pretrainings, weights
from training_helpers import SITE, Inputs, inputs, recipe

pytestmark = pytest.mark.cluster

RANKS, KILLS = 4, int(os.environ.get("KILLS", "2"))
"""Every start takes seconds: KILLS=20 in the environment for more of them."""
STEPS = 40 + 20 * KILLS
CASE = {"run": recipe(STEPS)}
SHARDED = SITE.model_copy(update={"layout": Layout(tensor=2)})
AT_THE_END = SHARDED.model_copy(update={"checkpoint_seconds": 1e6})
"""Where to run undisturbed: a state after every step takes as long as the steps."""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def calm(given: Inputs, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    training(folder, given, AT_THE_END)
    return weights(folder, "run")


def training(folder: Path, given: Inputs, runtime: Runtime = SHARDED) -> list[str]:
    """Train on four ranks; returns what is said of them."""
    said: list[str] = []
    launch(pretrainings, (CASE, runtime, folder, given), RANKS, 60.0, said.append)
    return said


def newest(folder: Path) -> int:
    states = (folder / "run.part" / "resume").glob("step-*")
    return max((int(path.name[5:]) for path in states if not path.suffix), default=0)


def wait_for(folder: Path, step: int) -> None:
    deadline = time.monotonic() + 60
    while newest(folder) < step:
        assert time.monotonic() < deadline, f"no state of step {step} came"
        time.sleep(0.002)


def gone(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return True


def test_one_rank_of_four_is_killed(given: Inputs, calm: bytes, tmp_path: Path) -> None:
    def kill() -> None:
        wait_for(tmp_path, 10)
        os.kill(int((tmp_path / "pid-2").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    (line,) = training(tmp_path, given)
    killer.join()
    assert line.startswith("rank 2 was killed by signal 9 (SIGKILL) at step ")
    assert weights(tmp_path, "run") == calm


def test_all_are_killed_at_random_moments(given: Inputs, calm: bytes, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"reproduce with seed {seed}")
    chance = random.Random(seed)
    context = multiprocessing.get_context("forkserver")
    for _ in range(KILLS):
        parent = context.Process(target=training, args=(tmp_path, given))
        parent.start()
        wait_for(tmp_path, newest(tmp_path) + chance.randrange(1, 8))
        time.sleep(chance.uniform(0, 0.1))
        parent.kill()
        parent.join()
        pids = [int((tmp_path / f"pid-{rank}").read_text()) for rank in range(RANKS)]
        deadline = time.monotonic() + 20
        while not all(gone(pid) for pid in pids):
            assert time.monotonic() < deadline, "ranks outlive their parent"
            time.sleep(0.05)
    assert newest(tmp_path) < STEPS
    training(tmp_path, given, AT_THE_END)
    assert weights(tmp_path, "run") == calm
