"""Look at the machine, then check our numbers on it.

in:  a runtime, the workspace
out: Diagnosis: the machine, an outcome per check
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.doctor import (
    checks_adaptation,
    checks_alignment,
    checks_data,
    checks_generation,
    checks_layers,
    checks_losses,
    checks_model,
    checks_objectives,
    checks_pii,
    checks_training,
)
from groundup.doctor.check import Check, CheckContext, CheckResult, outcome, threads
from groundup.doctor.machine import Machine, examine
from groundup.parallel.hardware import Hardware, choose_hardware

CHECKS: tuple[Check, ...] = (
    *checks_objectives.CHECKS,
    *checks_losses.CHECKS,
    *checks_layers.CHECKS,
    *checks_model.CHECKS,
    *checks_adaptation.CHECKS,
    *checks_generation.CHECKS,
    *checks_pii.CHECKS,
    *checks_data.CHECKS,
    *checks_training.CHECKS,
    *checks_alignment.CHECKS,
)


@dataclass(frozen=True)
class Diagnosis:
    """What was found. `seconds`: how long it took in all."""

    machine: Machine
    outcomes: list[CheckResult]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(found.ok for found in self.outcomes)


def diagnose(runtime: Runtime, workspace: Path, reporter: Reporter) -> Diagnosis:
    """Measure the machine and run every check."""
    began = time.perf_counter()
    hardware = choose_hardware(runtime)
    reporter.info("looking at the machine")
    machine = examine(hardware, workspace)
    outcomes = []
    with reporter.track("check", len(CHECKS), "checks") as tracker:
        for found in run(CHECKS, hardware):
            outcomes.append(found)
            tracker.note(found.name)
            tracker.advance()
    return Diagnosis(machine, outcomes, time.perf_counter() - began)


def run(checks: Sequence[Check], hardware: Hardware) -> Iterator[CheckResult]:
    """The outcome of every check, each with an empty folder of its own.

    On one thread: the tensors are small, and on a busy machine many threads mostly wait for each other.
    """
    for check in checks:
        with tempfile.TemporaryDirectory() as folder, threads(1):
            yield outcome(check, CheckContext(hardware, Path(folder)))
