"""The training loop: the only one. Pretraining, fine-tuning, reward models and PPO all pass through it.

in:  a learner (model, loss, optimizer: see `parallel/engines`), `batches(step)` (what a step learns from), a schedule
out: the model, trained; a line per step in metrics.jsonl; what was skipped in skipped.jsonl; TrainResult

It continues after any interruption and ends in the same bits, since nothing in it depends on the past but
weights, optimizer state, counters and what the guard remembers, which are saved together. Randomness belongs into
`batches` and `loss`, as a function of the seed and the step.
"""

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from groundup.core.atomic_io import explain_disk_errors
from groundup.core.errors import TrainingError
from groundup.core.metrics import MetricsLog
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext
from groundup.parallel.comm_timing import CommTiming
from groundup.parallel.context import SINGLE, ParallelContext, heartbeat
from groundup.parallel.engine import TrainEngine
from groundup.train.anomaly import IN_A_ROW, AnomalyGuard
from groundup.train.async_checkpoint import AsyncCheckpointer
from groundup.train.monitor import Monitor
from groundup.train.prefetch import Batches, prefetched
from groundup.train.resume_state import (
    Environment,
    Progress,
    ResumeState,
    current_environment,
    load_state,
    snapshot,
)
from groundup.train.signals import leave, signals
from groundup.train.step import Stepper, StepResult

Batch = TypeVar("Batch")
SKIPPED = "skipped.jsonl"
"""A line for every skipped step: reason, figures, documents. Only there where a step was skipped."""
ACCOUNTED = 50
"""Every so many steps, several ranks take one account of what it cost among them."""
NAMED = 8
"""Documents named in a message; all of them stand in the files."""


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
    transient_steps: int
    """steps whose first computation was faulty and whose second was not"""
    seconds: float
    """all training steps of all starts, without validation and saving"""
    tokens_per_second: float
    """over the timed steps only: learning from batches, without the first step of every start"""
    ended_early: bool


def train(
    *,
    learner: TrainEngine,
    batches: Batches[Batch],
    schedule: Callable[[int], float],
    steps: int,
    out: StageContext,
    runtime: Runtime,
    label: str = "train",
    tokens_per_step: float = 0.0,
    checkpoint_every: int = 1,
    probes: Sequence[Probe] = (),
    watch: Monitor | None = None,
    prefetch: bool = False,
    spikes: bool = False,
    name_batch: Callable[[int], list[str]] | None = None,
    environment: Mapping[str, Any] | None = None,
    world: ParallelContext = SINGLE,
) -> TrainResult:
    """Take `steps` optimizer steps, or continue where an interrupted run of the same work stopped.

    batches: step -> the micro-batches of one optimizer step, a pure function of (weights, step) at steps
        divisible by `checkpoint_every`; None ends the training early. prefetch: it is a function of the step alone, so
        the next ones may be made, and moved to the model's device, while a step computes.
    learner: the model, its optimizer and its loss. Losses and figures of a step's micro-batches are summed, so each
        is divided by the whole step's weight, not by its own.
    schedule: step -> factor for every group's learning rate.
    tokens_per_step: only for the rate. checkpoint_every: resume states are saved only at steps divisible by it.
    watch: looks at every step that is taken; what it returns joins the step's line.
    spikes: also mistrust a loss or gradient norm far above the recent ones (see `anomaly.py`).
    name_batch: step -> ids of the documents in its batches, for whoever looks for what broke it.
    environment: what the result's bits depend on beside the recipe, e.g. precision; noted in every state.
    world: the ranks that train the model together. `batches` gives each its own rows.

    A faulty step is computed once more. If it is right then, it is taken and counted as transient; else it is
    skipped, counted and logged with its documents. Three skipped in a row: the model goes back to the last saved
    state, and TrainingError says why. A full disk raises GroundupError. SIGINT and SIGTERM save the last whole
    step, then end the process as usual.
    """
    now = {**current_environment(learner.device), **(environment or {})}
    progress, guard = load_state(out.temporary, learner, now, out.info, world)
    run = _Run(out, label, steps, progress, guard, tokens_per_step, name_batch)
    stepper = Stepper(learner, guard, spikes, watch)
    with explain_disk_errors(label, out.path):
        run.begin()
        _take_steps(run, stepper, batches, schedule, probes, runtime, checkpoint_every, prefetch, now, world)
    return run.result()


def _take_steps(
    run: "_Run",
    stepper: Stepper,
    batches: Batches[Batch],
    schedule: Callable[[int], float],
    probes: Sequence[Probe],
    runtime: Runtime,
    boundary: int,
    prefetch: bool,
    now: Environment,
    world: ParallelContext,
) -> None:
    """All that are left, with states saved in between."""
    learner, guard, out, progress = stepper.learner, run.guard, run.out, run.progress
    device = learner.device

    def take_snapshot() -> ResumeState:
        return snapshot(learner, progress, guard, now)

    with ExitStack() as stack:
        asked = stack.enter_context(signals())
        tracker = stack.enter_context(out.watch(run.label, run.steps, start=progress.step))
        costs = device.type == "cpu"
        saver = stack.enter_context(
            AsyncCheckpointer(out.temporary, runtime.checkpoint_seconds, costs, world)
        )
        ready = stack.enter_context(prefetched(batches, run.steps, device)) if prefetch else batches
        for outcome in run.steps_left(_step_function(stepper, ready, schedule, world)):
            if guard.skipped_in_a_row == IN_A_ROW:
                saver.wait()
                back, _ = load_state(out.temporary, learner, now, out.info, world)
                raise TrainingError(run.why_it_stops(outcome, back.step))
            _measure(probes, progress, out)
            tracker.note(f"loss {outcome.values['loss']:.3f}")
            tracker.advance()
            # What is saved is good: where the last step was skipped, more may follow, and end here.
            good = guard.skipped_in_a_row == 0 and progress.step % boundary == 0
            due, leaving = world.any(good and saver.due(), bool(asked))
            if progress.finished or (good and (due or leaving)):
                saver.save(take_snapshot)
            if leaving:
                saver.wait()
                world.any(True)  # whoever leaves first may end the others, of which one may still be writing
                leave(asked[0] if asked else signal.SIGTERM)
        if progress.ended_early:
            saver.save(take_snapshot)


def _step_function(
    stepper: Stepper, batches: Batches[Batch], schedule: Callable[[int], float], world: ParallelContext
) -> Callable[[int], StepResult | None]:
    """step -> what became of it; None where there is nothing more to learn from."""
    device = stepper.learner.device

    def take(step: int) -> StepResult | None:
        micro_batches = batches(step)
        if micro_batches is None:
            return None
        factor = schedule(step)
        accounted = world.mesh is not None and (step + 1) % ACCOUNTED == 0
        costs = CommTiming(world, device) if accounted else None
        with costs or nullcontext():
            outcome = stepper.train_step(step, micro_batches, factor)
        if costs is not None:
            outcome.values.update(costs.figures())
        outcome.values["lr_factor"] = factor
        return outcome

    return take


def _measure(probes: Sequence[Probe], progress: Progress, out: StageContext) -> None:
    for probe in probes:
        if progress.finished or progress.step % probe.every == 0:
            values = probe.run(progress.step)
            if values:
                out.log(step=progress.step, **values)


@dataclass(frozen=True)
class _Run:
    """Counts the steps of a training and keeps its books."""

    out: StageContext
    label: str
    steps: int
    progress: Progress
    guard: AnomalyGuard
    tokens_per_step: float
    name_batch: Callable[[int], list[str]] | None

    def begin(self) -> None:
        """Cut the logs back to where the training continues."""
        step = self.progress.step
        self.out.rewind_log(step)
        if self.out.keeps_log:
            self._skipped_log.rewind(step)
        if 0 < step < self.steps and not self.progress.finished:
            self.out.info(f"continuing {self.label} at step {step} of {self.steps}")

    def steps_left(self, take: Callable[[int], StepResult | None]) -> Iterator[StepResult]:
        """Take the steps that are left, and give what became of each."""
        progress, first = self.progress, self.progress.step
        while not progress.finished:
            began = time.perf_counter()
            outcome = take(progress.step)
            if outcome is None:
                progress.finished = progress.ended_early = True
                return
            heartbeat(progress.step + 1)
            seconds = time.perf_counter() - began
            progress.seconds += seconds
            if progress.step > first:
                progress.timed_seconds += seconds
                progress.timed_steps += 1
            progress.step += 1
            progress.finished = progress.step >= self.steps
            self._note(outcome)
            yield outcome

    def why_it_stops(self, outcome: StepResult, back: int) -> str:
        """The last words of a training that skipped too many steps in a row, and is back at step `back`."""
        step, values = self.progress.step, outcome.values
        begin = f"continues from step {back}" if back else "begins anew"
        return (
            f"{self.label}: {IN_A_ROW} steps in a row up to step {step} were faulty, each of them twice: "
            f"{outcome.fault} (loss {values['loss']:.4g}, gradient norm {values['grad_norm']:.4g})."
            f"{self._documents_in_words()} Lower the learning rate (lr in its optimizer), or set "
            f'precision = "fp32". The same command {begin}, and stops here again as long as nothing is changed'
        )

    def result(self) -> TrainResult:
        """The sum of it."""
        return TrainResult(
            steps=self.progress.step,
            skipped_steps=self.guard.skipped,
            transient_steps=self.guard.transient,
            seconds=self.progress.seconds,
            tokens_per_second=self._rate(),
            ended_early=self.progress.ended_early,
        )

    @property
    def _skipped_log(self) -> MetricsLog:
        return MetricsLog(self.out.path / SKIPPED)

    def _note(self, outcome: StepResult) -> None:
        """Log a step, and where it was skipped say so and name its documents."""
        step, values = self.progress.step, dict(outcome.values)
        if self.tokens_per_step and self.progress.timed_steps:
            values["tokens_per_second"] = self._rate()
        if outcome.fault is None:
            self.out.log(step=step, **values)
        elif not outcome.skipped:
            self.out.log(step=step, **values, transient=1, reason=outcome.fault)
            self.out.info(f"step {step}: {outcome.fault}; computed again it was not")
        else:
            documents = self._documents(step - 1)
            self.out.log(step=step, **values, skipped=1, reason=outcome.fault, documents=documents)
            figures = {name: values[name] for name in ("loss", "grad_norm")}
            if self.out.keeps_log:
                self._skipped_log.log(step=step, reason=outcome.fault, **figures, documents=documents)
            self.out.info(f"step {step} skipped: {outcome.fault}; its documents are in {SKIPPED}")

    def _documents(self, step: int) -> list[str]:
        return [] if self.name_batch is None else list(dict.fromkeys(self.name_batch(step)))

    def _documents_in_words(self) -> str:
        last = range(self.progress.step - IN_A_ROW, self.progress.step)
        names = list(dict.fromkeys(name for step in last for name in self._documents(step)))
        if not names:
            return ""
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return (
            f" They hold the documents {', '.join(names[:NAMED])}{more} (all are in {self.out.path / SKIPPED}): "
            "if these are garbage, drop them in curate."
        )

    def _rate(self) -> float:
        return self.tokens_per_step * self.progress.timed_steps / max(self.progress.timed_seconds, 1e-9)
