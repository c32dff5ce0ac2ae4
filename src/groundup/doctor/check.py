"""A numerical check: compares one part of the library with a reference.

in:  a `CheckContext` (hardware, dtypes, a scratch folder), a `Check`
out: a `CheckResult`: largest error, tolerance, and the meaning of a failure

An error is the largest absolute difference divided by the largest absolute value of the reference. The tolerance is
the dtype's epsilon times the number of consecutive roundings of the computation, which each check declares.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from groundup.core.os_errors import explain
from groundup.parallel.hardware import Hardware

ADVICE = "Don't train on this machine. Reinstall groundup and torch; if it still fails, report `groundup doctor --json`"


@dataclass(frozen=True)
class CheckContext:
    """Hardware and scratch folder of a check; the folder is deleted after the check."""

    hardware: Hardware
    folder: Path

    @property
    def device(self) -> torch.device:
        """The device of the code under test; references are computed on the CPU."""
        return self.hardware.device

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """fp32 and the compute dtype of training on this hardware."""
        return tuple(dict.fromkeys((torch.float32, self.hardware.dtype)))


@dataclass(frozen=True)
class Difference:
    """The error of `what` against its reference, and its tolerance."""

    what: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the error is within the tolerance; false for NaN."""
        return self.error <= self.tolerance

    @property
    def share(self) -> float:
        """The error as a fraction of the tolerance; infinite for NaN."""
        if math.isnan(self.error):
            return math.inf
        return self.error / self.tolerance if self.tolerance else (math.inf if self.error else 0.0)


@dataclass(frozen=True)
class Check:
    """One check. `guards`: the fault that a failure indicates; `advice`: what to do about it."""

    name: str
    guards: str
    run: Callable[[CheckContext], Iterable[Difference]]
    advice: str = ADVICE


@dataclass(frozen=True)
class CheckResult:
    """The result of a check. `worst` is the comparison with the largest error relative to its tolerance."""

    name: str
    ok: bool
    error: float
    tolerance: float
    worst: str
    guards: str
    advice: str
    seconds: float


def compare(
    what: str,
    got: Tensor,
    want: Tensor,
    roundings: float,
    dtype: torch.dtype = torch.float32,
    scale: float = 0.0,
) -> Difference:
    """Compare tensors of any dtype and device; different shapes are an infinite error.

    scale: the magnitude that errors are relative to; 0 = the largest absolute value of `want`.
    """
    tolerance = roundings * torch.finfo(dtype).eps
    name = what if dtype == torch.float32 else f"{what}, {short(dtype)}"
    if got.shape != want.shape:
        return Difference(f"{name}: shape {tuple(got.shape)}, not {tuple(want.shape)}", math.inf, tolerance)
    got_values, want_values = got.detach().double().cpu(), want.detach().double().cpu()
    error = float((got_values - want_values).abs().max()) if want_values.numel() else 0.0
    size = scale or (float(want_values.abs().max()) if want_values.numel() else 0.0) or 1.0
    return Difference(name, error / size, tolerance)


def equal(what: str, got: object, want: object) -> Difference:
    """Compare tensors, lists or numbers for exact equality. The error is 0 or infinite."""
    if isinstance(got, Tensor) and isinstance(want, Tensor):
        same = got.shape == want.shape and bool((got.detach().cpu() == want.detach().cpu()).all())
    else:
        same = got == want
    return Difference(what, 0.0 if same else math.inf, 0.0)


def short(dtype: torch.dtype) -> str:
    """The short name of a dtype, e.g. `bf16`."""
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}.get(dtype, str(dtype).removeprefix("torch."))


def normal(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    """Normally distributed float64 numbers, a function of `seed`, exactly representable in bf16.

    The code under test, in any dtype, and the reference thus start from the same numbers.
    """
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    return noise.bfloat16().double()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the number of CPU threads inside the `with` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_check(check: Check, context: CheckContext) -> CheckResult:
    """Run one check; an exception counts as a failure, except an error of the system, which is raised."""
    began = time.perf_counter()
    try:
        differences = list(check.run(context)) or [Difference("nothing was compared", math.inf, 0.0)]
    except Exception as error:
        if explain(error):  # the machine's trouble, not the check's
            raise
        differences = [
            Difference(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", math.inf, 0.0)
        ]
    worst = max(differences, key=lambda difference: difference.share)
    return CheckResult(
        name=check.name,
        ok=all(difference.ok for difference in differences),
        error=worst.error,
        tolerance=worst.tolerance,
        worst=worst.what,
        guards=check.guards,
        advice=check.advice,
        seconds=time.perf_counter() - began,
    )
