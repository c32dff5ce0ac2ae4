"""Worker processes: results, errors and deaths of a function that runs elsewhere."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from groundup.core.errors import DataError, GroundupError
from groundup.text.worker_process import WorkerDied, WorkerProcess


def work(base: int, what: str) -> int | Iterator[int]:
    """Returns, raises or dies, as asked."""
    if what == "items":
        return iter([base, base + 1])
    if what == "mistake":
        raise DataError("the file is missing")
    if what == "disk":
        raise OSError(errno.ENOSPC, "x", "/disk/file")
    if what == "bug":
        raise ZeroDivisionError
    if what == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    return os.getpid()


def read(handle: int) -> bytes:
    """The content of an open file."""
    return os.pread(handle, 100, 0)


def hang(mark: Path) -> None:
    """Says that it runs, and does so for a minute."""
    mark.write_text(str(os.getpid()))
    time.sleep(60)


def test_results_items_and_errors_come_back() -> None:
    with WorkerProcess(partial(work, 5)) as worker:
        worker.call("number")
        process = worker.reply()
        assert process != os.getpid()
        worker.call("items")
        assert list(worker.replies()) == [5, 6]
        for what, kind, text in [
            ("mistake", DataError, "^the file is missing$"),
            ("disk", GroundupError, "^No space left on device: /disk/file"),
            ("bug", RuntimeError, "ZeroDivisionError"),
        ]:
            worker.call(what)
            with pytest.raises(kind, match=text):
                worker.reply()
        worker.call("number")
        assert worker.reply() == process, "an error does not end the process"


def test_a_death_is_told_with_its_signal() -> None:
    with WorkerProcess(partial(work, 5)) as worker:
        worker.call("die")
        with pytest.raises(WorkerDied, match=r"was killed by signal 11 \(SIGSEGV\)"):
            worker.reply()
        with pytest.raises(WorkerDied):
            worker.call("number")


def test_an_open_file_goes_along(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("rb") as file, WorkerProcess(read) as worker:
        path.unlink()
        worker.call(file=file.fileno())
        assert worker.reply() == b"content"


def test_a_worker_ends_with_its_owner_in_the_middle_of_a_call(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = f"""
import sys, time; sys.path[:0] = {sys.path!r}
from pathlib import Path
from test_worker_process import hang
from groundup.text.worker_process import WorkerProcess
worker = WorkerProcess(hang); worker.call(Path({str(mark)!r})); time.sleep(60)
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    )
    deadline = time.monotonic() + 60
    while not (mark.exists() and mark.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    owner.kill()
    owner.wait()
    worker = int(mark.read_text())
    while Path(f"/proc/{worker}/cmdline").exists() and Path(f"/proc/{worker}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
