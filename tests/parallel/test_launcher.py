"""Processes that work together: started, looked after, started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ranks_helpers
from groundup.core.errors import DataError, GroundupError, TrainingError
from groundup.parallel.launcher import ATTEMPTS, launch

TIMEOUT = 60.0


def test_ranks_meet_and_rank_0_answers() -> None:
    assert launch(ranks_helpers.summed, (2.0,), 3, TIMEOUT) == 2 * (1 + 2 + 3)


def test_an_error_of_one_rank_ends_all_of_them() -> None:
    with pytest.raises(DataError, match="rows are missing"):
        launch(ranks_helpers.refuses, (), 2, TIMEOUT)


def test_an_error_of_the_machine_has_the_words_of_the_main_process() -> None:
    with pytest.raises(GroundupError, match=r"^No space left on device: /disk/file.* Free some space"):
        launch(ranks_helpers.fills_the_disk, (), 2, TIMEOUT)


def test_an_unexpected_error_says_on_which_rank_and_where() -> None:
    with pytest.raises(ZeroDivisionError, match="by hand") as raised:
        launch(ranks_helpers.fails, (), 2, TIMEOUT)
    (note,) = raised.value.__notes__
    assert note.startswith("on rank 1:") and "in fails" in note


@pytest.mark.parametrize(
    ("how", "told"),
    [(signal.SIGKILL, "rank 1 was killed by signal 9 (SIGKILL) at step 4"),
     (0, "rank 1 hung for 2 seconds in hangs (")],
)  # fmt: skip
def test_a_rank_that_dies_or_hangs_is_named_and_all_start_again(tmp_path: Path, how: int, told: str) -> None:
    said: list[str] = []
    timeout = TIMEOUT if how else 2.0
    assert launch(ranks_helpers.dies, (tmp_path, 1, 1, how), 2, timeout, said.append) == 2
    (line,) = said
    assert line.startswith(told) and "at step 4" in line
    assert line.endswith("restarting all 2 ranks from the last checkpoint")


def test_starts_that_come_no_further_end_with_the_rank_and_the_step(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=rf"rank 0 was killed .* at step 4\. {ATTEMPTS} consecutive starts"
    ):
        launch(ranks_helpers.dies, (tmp_path, 0, 99, signal.SIGKILL), 2, TIMEOUT)
    assert (tmp_path / "starts-1").read_text() == "x" * ATTEMPTS


def test_sigterm_reaches_the_ranks_and_then_ends_their_parent(tmp_path: Path) -> None:
    code = f"""
import sys; sys.path[:0] = {sys.path!r}
from pathlib import Path
import ranks_helpers
from groundup.parallel.launcher import launch
if __name__ == "__main__":
    launch(ranks_helpers.waits_for_sigterm, (Path({str(tmp_path)!r}),), 2, 60.0)
"""
    script = tmp_path / "parent.py"
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, str(script)])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("ready-*"))) < 2:
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.05)
    os.kill(parent.pid, signal.SIGTERM)
    assert parent.wait(timeout=30) == 128 + signal.SIGTERM
    assert len(list(tmp_path.glob("left-*"))) == 2
