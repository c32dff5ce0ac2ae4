"""Tasks over processes: done once, resumed where they stopped, whatever dies."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import DataError
from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext
from groundup.text.executor import SMALL_BYTES, ExecutorTask, run_tasks

# What a killed process leaves open, Daft closes when its objects are collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def tasks(count: int) -> list[ExecutorTask]:
    return [ExecutorTask(number, {"number": number}, SMALL_BYTES) for number in range(count)]


def note(common: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Leaves a line for every time it is run; dies, once, where a file says so."""
    with (common / f"{about['number']}.ran").open("a") as file:
        file.write("x")
    flag = common / f"{about['number']}.kill"
    if flag.exists():
        flag.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if (common / f"{about['number']}.wrong").exists():
        raise DataError(f"task {about['number']} can't be done")
    if (common / f"{about['number']}.always").exists():
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    return {"number": about["number"], "process": os.getpid()}


def run(folder: Path, count: int, workers: int) -> list[dict[str, Any]]:
    work = StageContext(folder / "work", Reporter(quiet=True))
    return run_tasks(note, folder, tasks(count), work, Runtime(workers=workers), "test")


def test_every_task_is_done_once_and_results_are_in_order(tmp_path: Path) -> None:
    said = run(tmp_path, 5, workers=2)
    assert [item["number"] for item in said] == [0, 1, 2, 3, 4]
    assert os.getpid() not in {item["process"] for item in said}
    assert run(tmp_path, 5, workers=1) == said, "what is done isn't done again"
    assert all((tmp_path / f"{number}.ran").read_text() == "x" for number in range(5))


def test_a_killed_worker_costs_its_own_task_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "2.kill").touch()
    said = run(tmp_path, 5, workers=2)
    assert [item["number"] for item in said] == [0, 1, 2, 3, 4]
    ran = {number: len((tmp_path / f"{number}.ran").read_text()) for number in range(5)}
    assert ran[2] == 2 and sum(ran.values()) <= 5 + 2, "the killed task, and what the other worker was at"


def test_workers_that_only_die_are_reported(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.always").touch()
    with pytest.raises(DataError, match="workers died 3 times"):
        run(tmp_path, 2, workers=2)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_tasks_own_mistake_is_the_persons_message(tmp_path: Path, workers: int) -> None:
    (tmp_path / "1.wrong").touch()
    with pytest.raises(DataError, match="task 1 can't be done"):
        run(tmp_path, 3, workers)


def test_a_cluster_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    work = StageContext(tmp_path / "work", Reporter(quiet=True))
    before = time.monotonic()
    with pytest.raises(DataError, match=r"can't join that Ray cluster"):
        run_tasks(note, tmp_path, tasks(2), work, Runtime(ray="127.0.0.1:9"), "test")
    assert time.monotonic() - before < 30
