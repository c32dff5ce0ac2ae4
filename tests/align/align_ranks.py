"""Alignment on several ranks, for tests: a function that a rank's process finds by name, and what it leaves."""

import json
import os
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch.distributed as dist
from align_helpers import method_context

from groundup.align.align import train_with
from groundup.align.methods import Method
from groundup.core.runtime import Runtime
from groundup.core.stage import Metrics
from groundup.evaluate.tasks import Example
from groundup.parallel.context import heartbeat
from groundup.tokens.tokenizer import Tokenizer

Cases = Mapping[str, tuple[Method, Mapping[str, Path]]]
"""name -> method, folders of its inputs"""


def align_all(
    cases: Cases,
    runtime: Runtime,
    folder: Path,
    examples: list[Example],
    tokenizer_folder: Path,
    unit_bytes: int = 0,
    stop_at: int = 0,
) -> dict[str, Metrics]:
    """Run every case into folder/<name>, with Muon's products in fp32.

    unit_bytes: size of the largest model that FSDP gathers as one unit. stop_at: the step at which ranks get SIGTERM.
    """
    units = mock.patch("groundup.parallel.shard.SINGLE_UNIT_BYTES", unit_bytes)
    exact = mock.patch("groundup.train.optimizers.muon.cpu_has_fast_bf16", lambda: False)
    stop = mock.patch("groundup.train.loop.heartbeat", partial(_terminate_at, stop_at))
    rank = dist.get_rank() if dist.is_initialized() else 0
    metrics, tokenizer = {}, Tokenizer.load(tokenizer_folder)
    with units, exact, stop:
        for name, (method, inputs) in cases.items():
            context = method_context(
                folder / name, examples, tokenizer, runtime, keeps_log=rank == 0, **inputs
            )
            metrics[name] = train_with(method, context)
            context.stage.close_log()
    return metrics


def _terminate_at(last: int, step: int) -> None:
    heartbeat(step)
    if step == last:
        os.kill(os.getpid(), signal.SIGTERM)


def logged(folder: Path, *names: str) -> list[dict[str, Any]]:
    """Some of the numbers of every step in the metrics log."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{name: line[name] for name in names} for line in lines if "loss" in line]
