"""What ranks do in tests: functions that a rank's process finds by name."""

import json
import os
import signal
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore

from groundup.core.errors import DataError
from groundup.core.progress import Reporter
from groundup.core.runtime import Layout, Runtime
from groundup.core.stage import Metrics, open_context
from groundup.parallel.context import current_context, heartbeat
from groundup.parallel.watchdog import Watchdog
from groundup.train.pretrain import Pretrain, pretrain
from training_helpers import Inputs


def summed(number: float) -> float:
    """`number` times the ranks' numbers from one on, added up."""
    total = torch.tensor(number * (dist.get_rank() + 1))
    return float(current_context(Layout(), torch.device("cpu")).sum(total))


def refuses() -> None:
    if dist.get_rank() == 1:
        raise DataError("rows are missing")
    dist.barrier()


def fills_the_disk() -> None:
    if dist.get_rank() == 1:
        raise OSError(28, "No space left on device", "/disk/file")
    dist.barrier()


def fails() -> None:
    if dist.get_rank() == 1:
        raise ZeroDivisionError("by hand")
    dist.barrier()


def dies(folder: Path, rank: int, times: int, how: int) -> int:
    """Ten steps; a rank ends itself, or hangs, at the fourth, in the first `times` starts. -> starts"""
    starts = folder / f"starts-{dist.get_rank()}"
    starts.touch()
    with starts.open("a") as file:
        file.write("x")
    count = len(starts.read_text())
    for step in range(1, 11):
        heartbeat(step)
        if step == 4 and dist.get_rank() == rank and count <= times:
            time.sleep(0.2)
            os.kill(os.getpid(), how) if how else hangs()
        dist.barrier()
    return count


def hangs() -> None:
    time.sleep(3600)


def waits_for_sigterm(folder: Path) -> None:
    def leave(number: int, _: Any) -> None:
        (folder / f"left-{dist.get_rank()}").touch()
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    (folder / f"ready-{dist.get_rank()}").touch()
    time.sleep(60)


class RecordingReporter(Reporter):
    """Prints nothing, and keeps the messages."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.messages: list[str] = []

    def info(self, text: str) -> None:
        self.messages.append(text)


def pretrainings(
    cases: dict[str, Pretrain],
    runtime: Runtime,
    folder: Path,
    given: Inputs,
    leave_at: int = 0,
    together: int = 0,
) -> dict[str, Metrics]:
    """Pretrain every case into folder/<name>.part, as exactly as this machine can: Muon's products in fp32, too.

    leave_at: the step at which a SIGTERM reaches every rank. together: bytes of the largest model that isn't gathered
    layer by layer, as these would be if they were large. Beside its metrics, a case has the `messages`.
    """
    units = mock.patch("groundup.parallel.shard.SINGLE_UNIT_BYTES", together)
    leave = mock.patch("groundup.train.loop.heartbeat", partial(_terminate_at, leave_at))
    exact = mock.patch("groundup.train.optimizers.muon.cpu_has_fast_bf16", lambda: False)
    quick = mock.patch("groundup.train.utilization.matmul_rate", lambda *_, **__: 1e12)
    rank = dist.get_rank() if dist.is_initialized() else 0
    folder.mkdir(exist_ok=True)
    (folder / f"pid-{rank}").write_text(str(os.getpid()))
    found = {}
    with exact, quick, leave, units:
        for name, recipe in cases.items():
            reporter = RecordingReporter()
            out = open_context(folder / f"{name}.part", reporter, runtime, keeps_log=rank == 0)
            found[name] = pretrain(recipe, runtime, out, given.tokens, given.tokenizer) | {
                "messages": reporter.messages
            }
            out.close_log()
    return found


def _terminate_at(last: int, step: int) -> None:
    heartbeat(step)
    if step == last:
        os.kill(os.getpid(), signal.SIGTERM)


def weights(folder: Path, name: str) -> bytes:
    return (folder / f"{name}.part" / "model.safetensors").read_bytes()


def curve(folder: Path, name: str) -> list[tuple[float, float]]:
    """Loss and gradient norm of every step."""
    lines = map(json.loads, (folder / f"{name}.part" / "metrics.jsonl").read_text().splitlines())
    return [(line["loss"], line["grad_norm"]) for line in lines if "loss" in line]


def watched(port: int, rank: int, how: int, folder: Path) -> None:
    """Be one of two ranks, of which the second hangs after its first step: sleeping, or with the signal `how`."""

    def store() -> Store:
        return TCPStore("localhost", port, None, False, timedelta(seconds=60), wait_for_workers=False)

    sys.stderr = (folder / f"stderr-{rank}").open("w")
    dist.init_process_group("gloo", store=store(), rank=rank, world_size=2)
    with Watchdog(lambda: PrefixStore("watchdog", store()), "the test", rank, 2, timeout=3.0):
        heartbeat(1)
        if rank == 0:
            dist.barrier()
        time.sleep(1.0)
        os.kill(os.getpid(), how) if how else hangs()
