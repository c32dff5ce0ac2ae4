"""The training loop: the only one. Pretraining, fine-tuning, reward models and PPO all pass through it.

in:  a model, `batches(step)` (what a step learns from), `loss(model, batch)`, an optimizer, a schedule
out: the model, trained; a line per step in metrics.jsonl; TrainResult

It continues after any interruption and ends in the same bits, since nothing in it depends on the past but
weights, optimizer state and counters, which are saved together. Randomness belongs into `batches` and `loss`,
as a function of the seed and the step.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from groundup.core.errors import TrainingError
from groundup.core.recipe import Site
from groundup.core.stage import Work
from groundup.train.resume import Progress, load_state, save_state

Batch = TypeVar("Batch")
MAX_SKIPPED_IN_A_ROW = 5


@dataclass(frozen=True)
class Probe:
    """Something measured while training: `run(step)` after every `every` steps and after the last one."""

    every: int
    run: Callable[[int], dict[str, float]]


@dataclass(frozen=True)
class TrainResult:
    """How a training went. Rates leave out the first step of every start, which compiles kernels."""

    steps: int
    skipped_steps: int
    seconds: float
    """all training steps of all starts, without validation and saving"""
    tokens_per_second: float
    """over the timed steps only: learning from batches, without the first step of every start"""
    ended_early: bool


def train(
    *,
    model: nn.Module,
    batches: Callable[[int], Sequence[Batch] | None],
    loss: Callable[[Any, Batch], tuple[Tensor, dict[str, Tensor | float]]],
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float],
    steps: int,
    out: Work,
    site: Site,
    label: str = "train",
    tokens_per_step: float = 0.0,
    grad_clip: float = 1.0,
    boundary: int = 1,
    probes: Sequence[Probe] = (),
) -> TrainResult:
    """Take `steps` optimizer steps, or continue where an interrupted run of the same work stopped.

    batches: step -> the micro-batches of one optimizer step, a pure function of (weights, step) at steps
        divisible by `boundary`; None ends the training early.
    loss: (model, micro-batch) -> (scalar to differentiate, metrics). Losses and metrics of a step's
        micro-batches are summed, so each is divided by the whole step's weight, not by its own.
    schedule: step -> factor for every group's learning rate.
    tokens_per_step: only for the rate. grad_clip: largest global gradient norm; 0 = not clipped.
    boundary: resume states are saved only at steps divisible by it.

    A step whose loss or gradient isn't finite is skipped and counted; TrainingError after five in a row.
    SIGINT and SIGTERM save the last whole step, then end the process as usual.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    progress = load_state(out.temporary, model, optimizer, out.say)
    out.rewind_log(progress.step)
    if 0 < progress.step < steps and not progress.finished:
        out.say(f"continuing {label} at step {progress.step} of {steps}")

    def take(step: int) -> dict[str, float] | None:
        micro_batches = batches(step)
        if micro_batches is None:
            return None
        factor = schedule(step)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        return _step(model, micro_batches, loss, optimizer, grad_clip) | {"lr_factor": factor}

    with _signals() as asked, out.track(label, steps, "steps", start=progress.step) as tracker:
        for values in _steps(progress, steps, take, tokens_per_step):
            out.log(step=progress.step, **values)
            _refuse_to_go_on(progress, values, label)
            _measure(probes, progress, out)
            tracker.note(f"loss {values['loss']:.3f}")
            tracker.advance()
            due = asked or time.monotonic() - progress.saved_at > site.checkpoint_seconds
            if progress.finished or (due and progress.step % boundary == 0):
                save_state(out.temporary, model, optimizer, progress)
            if asked:
                _leave(asked[0])
    if progress.ended_early:
        save_state(out.temporary, model, optimizer, progress)
    rate = _rate(progress, tokens_per_step)
    return TrainResult(progress.step, progress.skipped, progress.seconds, rate, progress.ended_early)


def _measure(probes: Sequence[Probe], progress: Progress, out: Work) -> None:
    for probe in probes:
        if progress.finished or progress.step % probe.every == 0:
            out.log(step=progress.step, **probe.run(progress.step))


def _steps(
    progress: Progress, steps: int, take: Callable[[int], dict[str, float] | None], tokens_per_step: float
) -> Iterator[dict[str, float]]:
    """Take the steps that are left, keep the counters, and give each step's values."""
    first = progress.step
    while not progress.finished:
        began = time.perf_counter()
        values = take(progress.step)
        if values is None:
            progress.finished = progress.ended_early = True
            return
        seconds = time.perf_counter() - began
        progress.seconds += seconds
        if progress.step > first:
            progress.timed_seconds += seconds
            progress.timed_steps += 1
        progress.step += 1
        progress.finished = progress.step >= steps
        skipped = not _finite(values)
        progress.skipped += skipped
        progress.skipped_in_a_row = progress.skipped_in_a_row + 1 if skipped else 0
        if tokens_per_step and progress.timed_steps:
            values["tokens_per_second"] = _rate(progress, tokens_per_step)
        yield values | ({"skipped": 1.0} if skipped else {})


def _step(
    model: nn.Module,
    micro_batches: Sequence[Batch],
    loss: Callable[[Any, Batch], tuple[Tensor, dict[str, Tensor | float]]],
    optimizer: torch.optim.Optimizer,
    grad_clip: float,
) -> dict[str, float]:
    """One optimizer step; returns loss, gradient norm and the summed metrics. Not finite: nothing is changed."""
    totals: dict[str, Any] = {}
    for batch in micro_batches:
        value, metrics = loss(model, batch)
        value.backward()  # type: ignore[no-untyped-call]
        for name, part in ({"loss": value} | metrics).items():
            detached = part.detach() if isinstance(part, Tensor) else part
            totals[name] = totals[name] + detached if name in totals else detached
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    values = {name: float(value) for name, value in totals.items()} | {"grad_norm": float(norm)}
    if _finite(values):
        if grad_clip:
            torch.nn.utils.clip_grads_with_norm_(parameters, grad_clip, norm)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return values


def _finite(values: dict[str, float]) -> bool:
    return math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"])


def _rate(progress: Progress, tokens_per_step: float) -> float:
    return tokens_per_step * progress.timed_steps / max(progress.timed_seconds, 1e-9)


def _refuse_to_go_on(progress: Progress, values: dict[str, float], label: str) -> None:
    if progress.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
        raise TrainingError(
            f"{label}: {MAX_SKIPPED_IN_A_ROW} steps in a row up to step {progress.step} had a loss or gradient "
            f"that is not finite (loss {values['loss']}, gradient norm {values['grad_norm']}). Lower the "
            'learning rate (lr in its optimizer), or set precision = "fp32"'
        )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that holds the number of SIGINT or SIGTERM once one came; a second one acts at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, _: Any) -> None:
        asked.append(number)
        restore()

    for number in numbers:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        restore()


def _leave(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
