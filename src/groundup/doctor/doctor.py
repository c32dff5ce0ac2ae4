"""`groundup doctor`: measures the machine and runs every numerical check on it.

in:  a runtime, the workspace
out: `Diagnosis`: the machine, one result per check
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
from groundup.doctor.check import Check, CheckContext, CheckResult, run_check, threads
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
    """The machine, the results of all checks, and the total time in seconds."""

    machine: Machine
    results: list[CheckResult]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return all(result.ok for result in self.results)


def diagnose(runtime: Runtime, workspace: Path, reporter: Reporter) -> Diagnosis:
    """Measure the machine and run every check."""
    began = time.perf_counter()
    hardware = choose_hardware(runtime)
    reporter.info("measuring the machine")
    machine = examine(hardware, workspace)
    results = []
    with reporter.track("check", len(CHECKS), "checks") as tracker:
        for result in run(CHECKS, hardware):
            results.append(result)
            tracker.note(result.name)
            tracker.advance()
    return Diagnosis(machine, results, time.perf_counter() - began)


def run(checks: Sequence[Check], hardware: Hardware) -> Iterator[CheckResult]:
    """Results of `checks`, each run with its own empty folder.

    Checks run on one thread: their tensors are small, and more threads only wait for each other on a busy machine.
    """
    for check in checks:
        with tempfile.TemporaryDirectory() as folder, threads(1):
            yield run_check(check, CheckContext(hardware, Path(folder)))
