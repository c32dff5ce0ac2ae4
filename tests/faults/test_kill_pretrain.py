"""kill -9, SIGTERM, SIGINT at any moment of pretraining, also while a state is written: the same weights."""

import multiprocessing
import os
import random
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from groundup.core.runtime import Runtime
from training_helpers import SITE, Inputs, build, inputs

pytestmark = pytest.mark.slow

STEPS = 260
"""Many more than twenty kills allow: every start takes a few steps."""
KILLS = 20
AT_THE_END = SITE.model_copy(update={"checkpoint_seconds": 1e6})
"""Where to run undisturbed: a state after every step takes as long as the steps."""
FILE_EVENTS = {
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.listdir",
    "os.scandir",
    "shutil.rmtree",
}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def starter() -> Any:
    """Starts processes that have the libraries in memory already, so that a start takes no seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["groundup.train.pretrain", "groundup.tokens.tokenize", "pytest"])
    return context


@pytest.fixture(scope="module")
def calm(starter: Any, given: Inputs, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a run that nobody disturbed."""
    workspace = tmp_path_factory.mktemp("calm")
    assert end_of(started(starter, workspace, given, AT_THE_END)) == 0
    return weights(workspace)


def pretraining(workspace: Path, given: Inputs, runtime: Runtime, operations: int) -> None:
    """Pretrain in this process; kill it at its file operation number `operations` within the resume states."""
    left = operations

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in FILE_EVENTS and arguments and "resume" in str(arguments[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    if operations:
        sys.addaudithook(count)
    build(workspace, given, STEPS, runtime)


def started(
    starter: Any, workspace: Path, given: Inputs, runtime: Runtime = SITE, operations: int = 0
) -> BaseProcess:
    process: BaseProcess = starter.Process(target=pretraining, args=(workspace, given, runtime, operations))
    process.start()
    return process


def end_of(process: BaseProcess) -> int | None:
    process.join(120)
    return process.exitcode


def weights(workspace: Path) -> bytes:
    (path,) = (workspace / "artifacts").glob("pretrain-*/model.safetensors")
    return path.read_bytes()


def newest(workspace: Path) -> int:
    """The step of the newest whole state, 0 = none."""
    states = (workspace / "artifacts").glob("pretrain-*.part/resume/step-*")
    return max((int(path.name[5:]) for path in states if not path.suffix), default=0)


def wait_for(workspace: Path, step: int, process: BaseProcess) -> None:
    while newest(workspace) < step and process.is_alive():
        time.sleep(0.001)


def test_killed_at_twenty_random_moments_the_weights_are_the_same(
    starter: Any, given: Inputs, calm: bytes, tmp_path: Path
) -> None:
    seed = random.randrange(10**6)
    print(f"reproduce with seed {seed}")
    chance = random.Random(seed)
    reached = []
    for kill in range(KILLS):
        if kill % 2:  # at a file operation of the writing thread, or of the sweeping before
            process = started(starter, tmp_path, given, operations=chance.randrange(1, 200))
        else:  # a few steps on, at any moment of computing or writing
            process = started(starter, tmp_path, given)
            wait_for(tmp_path, newest(tmp_path) + chance.randrange(1, 8), process)
            time.sleep(chance.uniform(0, 0.02))
            process.kill()
        assert end_of(process) == -signal.SIGKILL
        reached.append(newest(tmp_path))
    assert reached == sorted(reached) and 0 < reached[-1] < STEPS, f"after each kill: {reached}"
    assert len(set(reached)) > KILLS // 2
    assert end_of(started(starter, tmp_path, given, AT_THE_END)) == 0
    assert weights(tmp_path) == calm


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves_and_the_run_goes_on(
    number: signal.Signals, status: int, starter: Any, given: Inputs, calm: bytes, tmp_path: Path
) -> None:
    process = started(starter, tmp_path, given)
    wait_for(tmp_path, 5, process)
    before = time.monotonic()
    os.kill(process.pid or 0, number)
    assert end_of(process) in (status, 1), "multiprocessing turns KeyboardInterrupt into 1"
    assert time.monotonic() - before < 20
    assert 5 <= newest(tmp_path) < STEPS
    assert end_of(started(starter, tmp_path, given, AT_THE_END)) == 0
    assert weights(tmp_path) == calm


def test_two_signals_at_once_leave_a_whole_state(
    starter: Any, given: Inputs, calm: bytes, tmp_path: Path
) -> None:
    process = started(starter, tmp_path, given)
    wait_for(tmp_path, 5, process)
    for _ in range(2):
        os.kill(process.pid or 0, signal.SIGTERM)
        time.sleep(0.001)
    assert end_of(process) not in (0, None)
    assert newest(tmp_path) >= 5
    assert end_of(started(starter, tmp_path, given, AT_THE_END)) == 0
    assert weights(tmp_path) == calm
