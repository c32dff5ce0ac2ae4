"""Ranks that somebody else starts: a tiny blueprint, what it reads, and processes that are surely ended."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

BLUEPRINT = """
name = "tiny"
[[ingest.sources]]
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
[runtime]
device = "cpu"
compile = "off"
"""
BIN = Path(sys.executable).parent
GROUNDUP = str(BIN / "groundup")
LAUNCH = Path(__file__).resolve().parents[1] / "launch"
VARIABLES = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
SECONDS = 120.0
"""For anything to end; what takes longer hangs."""


def texts(folder: Path, blueprint: str = BLUEPRINT) -> Path:
    """A folder with a blueprint and what it reads."""
    (folder / "docs").mkdir()
    for n in range(60):
        text = (
            f"Number {n} is a fine number. Its square is {n * n}, and its double is {2 * n}. It is said that {n} likes "
            f"{n + 1} more than {n + 2}. The end of the story of {n}."
        )
        (folder / "docs" / f"{n}.txt").write_text(text)
    (folder / "tiny.toml").write_text(blueprint)
    return folder


def one_process(folder: Path) -> dict[str, Any]:
    """Train in a single process in folder/one, and leave all but the training in folder/tokenized; the metrics."""
    run([GROUNDUP, "run", "tiny.toml", "--until", "tokenize", "--workspace", "tokenized"], folder)
    shutil.copytree(folder / "tokenized", folder / "one", symlinks=True)
    run([GROUNDUP, "run", "tiny.toml", "--until", "pretrain", "--workspace", "one"], folder)
    return pretrained(folder / "one")


def workspace(folder: Path, name: str) -> str:
    """A workspace in which only the training is still to be done."""
    shutil.copytree(folder / "tokenized", folder / name, symlinks=True)
    return name


def run(command: list[str], folder: Path, **variables: str) -> str:
    """Run to its good end; returns what it said."""
    with started(command, folder, folder / "said.log", **variables) as process:
        status = process.wait(SECONDS)
        said = (folder / "said.log").read_text()
        assert status == 0, said
        return said


@contextmanager
def started(
    command: list[str], folder: Path, log: Path, **variables: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in a session of its own; nothing of it outlives the context."""
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    environment = {**inherited, "PATH": path, "OMP_NUM_THREADS": "1", **variables}
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        kill_all(process)


def run_together(commands: list[list[str]], folder: Path, variables: list[dict[str, str]]) -> list[str]:
    """Run all at once to their good end; returns what they said."""
    logs = [folder / f"said-{number}.log" for number in range(len(commands))]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(started(command, folder, log, **set_))
            for command, log, set_ in zip(commands, logs, variables, strict=True)
        ]
        statuses = [process.wait(SECONDS) for process in processes]
    said = [log.read_text() for log in logs]
    assert statuses == [0] * len(commands), "\n\n".join(said)
    return said


def kill_all(process: "subprocess.Popen[bytes]") -> None:
    """kill -9 of a process and all that it started, also where that has a session of its own."""
    for pid in [process.pid, *descendants(process.pid)]:
        with_pid(os.kill, pid)
    with_pid(os.killpg, process.pid)
    process.wait(10)


def with_pid(kill: Callable[[int, int], None], pid: int) -> None:
    """SIGKILL to a process that may be gone already."""
    try:
        kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, and those that these have."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            found += [child, *descendants(child)]
    return found


def wait_until(true: Callable[[], Any], what: str) -> Any:
    """What `true` gives once it isn't empty."""
    deadline = time.monotonic() + SECONDS
    while not (found := true()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


def pretrained(place: Path) -> dict[str, Any]:
    (manifest,) = (place / "artifacts").glob("pretrain-*/manifest.json")
    metrics: dict[str, Any] = json.loads(manifest.read_text())["metrics"]
    return metrics


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port: int = free.getsockname()[1]
        return port


def listens(port: int) -> bool:
    """Whether somebody on this machine does at that port."""
    with socket.socket() as knocks:
        return knocks.connect_ex(("localhost", port)) == 0
