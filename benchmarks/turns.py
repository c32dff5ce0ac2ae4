"""Interleaved trainings on one machine: contenders take turns, so that noise affects all of them alike.

in:  commands that train indefinitely and call `Turns.after_step`; seconds per turn
out: each contender's facts after warmup, and its number of steps in every turn

A contender is a separate process and may use another environment: this file imports the standard library only. One
contender runs at a time; the others wait on a pipe.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Turn:
    """One contender's turn in a round."""

    steps: int
    seconds: float


class Turns:
    """The contender's side: blocks the training until its turn.

    warm_up: steps before the first turn; the first of them compiles.
    """

    def __init__(self, warm_up: int = 3, **facts: Any) -> None:
        self._warm_up, self._facts = warm_up, facts
        # Output of libraries must not reach the pipe of the protocol.
        self._reports = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._steps = self._turn_steps = 0
        self._turn_seconds = 0.0
        self._began = time.perf_counter()

    def after_step(self) -> None:
        """Call after every optimizer step. Raises SystemExit after the last turn."""
        self._steps += 1
        seconds = time.perf_counter() - self._began
        if self._steps == 1:
            self._facts["first_step_seconds"] = seconds
        if self._steps == self._warm_up:
            self._tell(self._facts)
        elif self._steps > self._warm_up and seconds >= self._turn_seconds:
            self._tell({"steps": self._steps - self._turn_steps, "seconds": seconds})

    def _tell(self, values: dict[str, Any]) -> None:
        print(json.dumps(values), file=self._reports, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise SystemExit(0)
        self._turn_seconds, self._turn_steps = float(line), self._steps
        self._began = time.perf_counter()


class Contender:
    """The benchmark's side: a training in a child process; a context manager that ends the process."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by __exit__)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self.facts = self._read()

    def run(self, seconds: float) -> Turn:
        """Train for about `seconds`, whole steps only."""
        assert self._process.stdin is not None
        print(seconds, file=self._process.stdin, flush=True)
        return Turn(**self._read())

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            words = self._errors.read()[-3000:]
            self.__exit__()
            sys.exit(f"{self.name} ended with {self._process.returncode}:\n{words}")
        report: dict[str, Any] = json.loads(line)
        return report

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()
