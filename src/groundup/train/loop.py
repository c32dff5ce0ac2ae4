"""The training loop. Pretraining, fine-tuning, reward models and PPO all use it.

in:  TrainSpec: an engine (model, loss, optimizer), the batches of every step, a learning-rate schedule
out: TrainResult; trained weights in the engine; metrics.jsonl with a line per step; skipped.jsonl with skipped steps

An interrupted training resumes and ends in the same bits: a step depends only on the weights, the optimizer state,
counters and the anomaly guard's history, which are saved together. Randomness in `batches` and in the loss must be a
function of the seed and the step.
"""

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

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
from groundup.train.prefetch import StepBatches, prefetched
from groundup.train.resume_state import (
    Environment,
    Progress,
    ResumeState,
    current_environment,
    load_state,
    snapshot,
)
from groundup.train.signals import catch_signals, exit_for_signal
from groundup.train.step import Stepper, StepResult

SKIPPED = "skipped.jsonl"
"""Skipped steps: reason, metrics, documents. Written only where a step was skipped."""
COMM_TIMING_EVERY = 50
"""Steps between two measurements of communication time, with several ranks."""
NAMED_DOCUMENTS = 8
"""Most documents listed in a message; the files list all."""


@dataclass(frozen=True)
class Probe:
    """A measurement during training: `run(step)` after every `every` steps and after the last one."""

    every: int
    run: Callable[[int], dict[str, float]]


@dataclass(frozen=True)
class TrainSpec:
    """Everything that one training needs."""

    label: str
    """the training's name in messages and in the progress display"""
    engine: TrainEngine
    """model, optimizer and loss. The losses and metrics of a step's micro-batches are summed, so each is divided by
    the weight of the whole step, on all ranks."""
    batches: StepBatches[Any]
    """step -> this rank's micro-batches; None ends the training early. Depends only on the step and, at steps
    divisible by `checkpoint_every`, on the weights."""
    schedule: Callable[[int], float]
    """step -> factor of every parameter group's learning rate"""
    steps: int
    """optimizer steps"""
    context: StageContext
    runtime: Runtime
    parallel: ParallelContext = SINGLE
    """the ranks that train the model together"""
    tokens_per_step: float = 0.0
    """tokens of all ranks, for the throughput; 0 = it varies, no throughput is logged"""
    checkpoint_every: int = 1
    """resume states are saved only at steps divisible by this"""
    prefetch: bool = False
    """prepare the next batches while a step computes; only where they depend on the step alone"""
    detect_spikes: bool = False
    """treat a loss or gradient norm far above the recent ones as a fault (see `anomaly.py`)"""
    probes: Sequence[Probe] = ()
    monitor: Monitor | None = None
    """observes every applied step; its values join the step's line"""
    document_ids: Callable[[int], list[str]] | None = None
    """step -> ids of the documents in its batches, for messages about faulty steps"""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """further settings that decide the result's bits, e.g. the precision; recorded in every resume state"""


@dataclass(frozen=True)
class TrainResult:
    """Counters of a finished training. Throughput excludes the first step after every start (kernel compilation)."""

    steps: int
    skipped_steps: int
    transient_steps: int
    """steps with a transient error: the first computation was faulty, the second was not"""
    seconds: float
    """all training steps of all starts, without validation and checkpoints"""
    tokens_per_second: float
    ended_early: bool


def train(spec: TrainSpec) -> TrainResult:
    """Take the optimizer steps of `spec`, resuming from the newest resume state of an interrupted run.

    A faulty step is recomputed. A finite recomputation is applied and counted as transient; otherwise the step is
    skipped, counted and logged with its documents. After three skipped steps in a row the weights of the last resume
    state are restored and TrainingError explains the fault. SIGINT and SIGTERM end
    the process after a resume state of the last complete step is saved.
    """
    environment = {**current_environment(spec.engine.device), **spec.environment}
    progress, guard = load_state(
        spec.context.temporary, spec.engine, environment, spec.context.info, spec.parallel
    )
    run = _Run(spec, environment, progress, guard)
    run.begin()
    _take_steps(run)
    return run.result()


def _take_steps(run: "_Run") -> None:
    """Take the remaining steps and save resume states in between."""
    spec, guard, progress = run.spec, run.guard, run.progress
    device, parallel = spec.engine.device, spec.parallel
    with ExitStack() as stack:
        received = stack.enter_context(catch_signals())
        tracker = stack.enter_context(spec.context.watch(spec.label, spec.steps, start=progress.step))
        tracker.note("compiling kernels" if (spec.environment or {}).get("compiled") else "first step")
        saver = stack.enter_context(
            AsyncCheckpointer(
                spec.context.temporary, spec.runtime.checkpoint_seconds, device.type == "cpu", parallel
            )
        )
        batches = spec.batches
        if spec.prefetch:
            batches = stack.enter_context(prefetched(batches, spec.steps, device))
        for outcome in run.remaining_steps(_step_function(run, batches)):
            if guard.skipped_in_a_row == IN_A_ROW:
                saver.wait()
                raise TrainingError(run.explain_stop(outcome, run.restore().step))
            _run_probes(spec, progress)
            tracker.note(f"loss {outcome.values['loss']:.3f}")
            tracker.advance()
            # No state is saved after a skipped step: the next ones may be skipped too and end the training.
            good = guard.skipped_in_a_row == 0 and progress.step % spec.checkpoint_every == 0
            due, stopping = parallel.any(good and saver.due(), bool(received))
            if progress.finished or (good and (due or stopping)):
                saver.save(run.snapshot)
            if stopping:
                saver.wait()
                parallel.any(True)  # the first rank that exits may end the others while one is still writing
                exit_for_signal(received[0] if received else signal.SIGTERM)
        if progress.ended_early:
            saver.save(run.snapshot)


def _step_function(run: "_Run", batches: StepBatches[Any]) -> Callable[[int], StepResult | None]:
    """step -> its result; None where `batches` ends the training."""
    spec = run.spec
    stepper = Stepper(spec.engine, run.guard, spec.detect_spikes, spec.monitor)

    def take(step: int) -> StepResult | None:
        micro_batches = batches(step)
        if micro_batches is None:
            return None
        factor = spec.schedule(step)
        timed = spec.parallel.mesh is not None and (step + 1) % COMM_TIMING_EVERY == 0
        timing = CommTiming(spec.parallel, spec.engine.device) if timed else None
        with timing or nullcontext():
            outcome = stepper.train_step(step, micro_batches, factor)
        if timing is not None:
            outcome.values.update(timing.metrics())
        outcome.values["lr_factor"] = factor
        return outcome

    return take


def _run_probes(spec: TrainSpec, progress: Progress) -> None:
    for probe in spec.probes:
        if progress.finished or progress.step % probe.every == 0:
            values = probe.run(progress.step)
            if values:
                spec.context.log(step=progress.step, **values)


@dataclass(frozen=True)
class _Run:
    """A training in progress: counts the steps, writes the logs."""

    spec: TrainSpec
    environment: Environment
    progress: Progress
    guard: AnomalyGuard

    def begin(self) -> None:
        """Drop log lines after the step from which the training continues."""
        step, context = self.progress.step, self.spec.context
        context.rewind_log(step)
        if context.keeps_log:
            self._skipped_log.rewind(step)
        if 0 < step < self.spec.steps and not self.progress.finished:
            context.info(f"continuing {self.spec.label} at step {step} of {self.spec.steps}")

    def snapshot(self) -> ResumeState:
        """A copy of the training's state on the CPU."""
        return snapshot(self.spec.engine, self.progress, self.guard, self.environment)

    def restore(self) -> Progress:
        """Load the newest resume state into the engine."""
        context = self.spec.context
        return load_state(
            context.temporary, self.spec.engine, self.environment, context.info, self.spec.parallel
        )[0]

    def remaining_steps(self, take: Callable[[int], StepResult | None]) -> Iterator[StepResult]:
        """Take the remaining steps; yields the result of each."""
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
            progress.finished = progress.step >= self.spec.steps
            self._log(outcome)
            yield outcome

    def explain_stop(self, outcome: StepResult, restored: int) -> str:
        """The message of a training that skipped too many steps in a row. restored: the step it was reset to."""
        step, values = self.progress.step, outcome.values
        begin = f"continues from step {restored}" if restored else "restarts from step 0"
        return (
            f"{self.spec.label}: {IN_A_ROW} consecutive steps up to step {step} were faulty, and so were their "
            f"recomputations: {outcome.fault} (loss {values['loss']:.4g}, gradient norm {values['grad_norm']:.4g})."
            f"{self._documents_sentence()} Lower the learning rate (lr in its optimizer), or set "
            f'precision = "fp32". Rerunning {begin} and fails here again unless you change something'
        )

    def result(self) -> TrainResult:
        """The counters of the whole training."""
        return TrainResult(
            steps=self.progress.step,
            skipped_steps=self.guard.skipped,
            transient_steps=self.guard.transient,
            seconds=self.progress.seconds,
            tokens_per_second=self._tokens_per_second(),
            ended_early=self.progress.ended_early,
        )

    @property
    def _skipped_log(self) -> MetricsLog:
        return MetricsLog(self.spec.context.path / SKIPPED)

    def _log(self, outcome: StepResult) -> None:
        """Log a step; where it was faulty, report the fault and the documents."""
        step, values, context = self.progress.step, dict(outcome.values), self.spec.context
        if self.spec.tokens_per_step and self.progress.timed_steps:
            values["tokens_per_second"] = self._tokens_per_second()
        if outcome.fault is None:
            context.log(step=step, **values)
        elif not outcome.skipped:
            context.log(step=step, **values, transient=1, reason=outcome.fault)
            context.info(
                f"step {step}: {outcome.fault}; the recomputed step was finite and was applied (transient error)"
            )
        else:
            documents = self._documents(step - 1)
            context.log(step=step, **values, skipped=1, reason=outcome.fault, documents=documents)
            metrics = {name: values[name] for name in ("loss", "grad_norm")}
            if context.keeps_log:
                self._skipped_log.log(step=step, reason=outcome.fault, **metrics, documents=documents)
            context.info(f"step {step} skipped: {outcome.fault}; {SKIPPED} lists its documents")

    def _documents(self, step: int) -> list[str]:
        ids = self.spec.document_ids
        return [] if ids is None else list(dict.fromkeys(ids(step)))

    def _documents_sentence(self) -> str:
        last = range(self.progress.step - IN_A_ROW, self.progress.step)
        names = list(dict.fromkeys(name for step in last for name in self._documents(step)))
        if not names:
            return ""
        more = f" and {len(names) - NAMED_DOCUMENTS} more" if len(names) > NAMED_DOCUMENTS else ""
        return (
            f" Their batches contain the documents {', '.join(names[:NAMED_DOCUMENTS])}{more} (all are in "
            f"{self.spec.context.path / SKIPPED}): if these are garbage, drop them in curate."
        )

    def _tokens_per_second(self) -> float:
        seconds = max(self.progress.timed_seconds, 1e-9)
        return self.spec.tokens_per_step * self.progress.timed_steps / seconds
