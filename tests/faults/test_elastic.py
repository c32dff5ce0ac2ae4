"""torchrun's agents come and go while a training runs: it goes on, on fewer and on more ranks, to the same losses."""

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from cluster_helpers import (
    BLUEPRINT,
    GROUNDUP,
    LAUNCH,
    descendants,
    free_port,
    kill_all,
    listens,
    run,
    started,
    texts,
    wait_until,  # fmt: skip
)

pytestmark = pytest.mark.cluster

STEPS = 30
ELASTIC = BLUEPRINT.replace("tokens = 5120", f"tokens = {STEPS * 512}\nmax_epochs = 1000").replace(
    "[runtime]", '[pretrain.optimizer]\nuse = "adamw"\n[runtime]\ncheckpoint_seconds = 0.05'
)
"""AdamW: Muon's products are rounded to 16 bits where the machine is fast in these."""
COMMAND = ["tiny.toml", "--until", "pretrain"]


def newest(workspace: Path) -> int:
    """The step of the newest whole state, 0 = none."""
    states = (workspace / "artifacts").glob("pretrain-*.part/resume/step-*")
    return max((int(path.name[5:]) for path in states if not path.suffix), default=0)


def losses(workspace: Path) -> list[float]:
    (log,) = (workspace / "artifacts").glob("pretrain-*/metrics.jsonl")
    return [line["loss"] for line in map(json.loads, log.read_text().splitlines()) if "loss" in line]


def asked_to_leave(pid: int) -> bool:
    """Whether a SIGTERM waits for a process that is stopped."""
    status = Path(f"/proc/{pid}/status").read_text()
    (pending,) = (line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd"))
    return bool(int(pending, 16) >> (signal.SIGTERM - 1) & 1)


def test_an_agent_is_killed_and_another_one_joins(tmp_path: Path) -> None:
    folder = texts(tmp_path, ELASTIC)
    run([GROUNDUP, "run", *COMMAND, "--workspace", "one"], folder)
    port = free_port()
    variables = {"HEAD": f"localhost:{port}", "RANKS_PER_NODE": "1", "WORKSPACE": "many",
                 "LAST_CALL_SECONDS": "4", "BEAT_SECONDS": "1"}  # fmt: skip
    many, agent = folder / "many", [str(LAUNCH / "torchrun.sh"), *COMMAND]
    logs = [folder / f"{name}.log" for name in ("stays", "killed", "joins")]
    said = lambda: "".join(log.read_text() for log in logs if log.exists())  # noqa: E731
    with ExitStack() as stack:
        stays = stack.enter_context(started(agent, folder, logs[0], **variables))
        wait_until(lambda: listens(port), "the agent where the others meet")
        killed = stack.enter_context(started(agent, folder, logs[1], **variables))
        wait_until(lambda: newest(many) >= 5, "five steps of two ranks")
        kill_all(killed)
        wait_until(lambda: "1 rank of a cluster" in said(), "a start with one rank")
        first = newest(many)
        wait_until(lambda: newest(many) >= first + 5, "five steps of one rank")
        (rank,) = (
            pid for pid in descendants(stays.pid) if b"tiny.toml" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        os.kill(rank, signal.SIGSTOP)  # or it may have done all steps before the other agent is there
        joins = stack.enter_context(started(agent, folder, logs[2], **variables))
        wait_until(lambda: asked_to_leave(rank), "the agent to make room for the other one")
        second = newest(many)
        os.kill(rank, signal.SIGCONT)
        assert (stays.wait(60), joins.wait(60)) == (0, 0), said()
    assert said().count("2 ranks of a cluster") == 2
    assert first < second < STEPS
    assert f"continuing pretrain at step {first} of {STEPS}" in said()
    assert said().count(f"of {STEPS}\n") >= 2
    assert losses(many) == pytest.approx(losses(folder / "one"), rel=1e-5)
