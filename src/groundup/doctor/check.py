"""A check holds a piece of our arithmetic against a reference and says how far apart they are.

in:  a bench (hardware, dtypes, a folder for scratch files), a list of checks
out: an outcome per check: its largest error, the error allowed, and what a failure means

How much error is allowed follows from the dtype: every rounding may be off by the dtype's epsilon, and a check says
how many roundings lie one after the other in what it looks at. An error is the largest difference of any number,
divided by the largest number of the reference.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from groundup.parallel.hardware import Hardware

ADVICE = "Don't trust a training here. Install groundup and torch anew; if it stays, report `groundup doctor --json`"


@dataclass(frozen=True)
class CheckContext:
    """Where checks work. `folder` is theirs alone and goes when they are done."""

    hardware: Hardware
    folder: Path

    @property
    def device(self) -> torch.device:
        """Where our side of a comparison is computed; references are computed on the CPU."""
        return self.hardware.device

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """fp32, and the dtype that training on this hardware computes in."""
        return tuple(dict.fromkeys((torch.float32, self.hardware.dtype)))


@dataclass(frozen=True)
class Difference:
    """How far `what` is from its reference, and how far it may be."""

    what: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether it is near enough; NaN never is."""
        return self.error <= self.tolerance

    @property
    def share(self) -> float:
        """The error as a share of what is allowed; infinite where it isn't a number."""
        if math.isnan(self.error):
            return math.inf
        return self.error / self.tolerance if self.tolerance else (math.inf if self.error else 0.0)


@dataclass(frozen=True)
class Check:
    """`guards`: what is wrong when it fails. `advice`: what to do then."""

    name: str
    guards: str
    run: Callable[[CheckContext], Iterable[Difference]]
    advice: str = ADVICE


@dataclass(frozen=True)
class CheckResult:
    """What a check found. `worst` is what came nearest to its tolerance, or went furthest beyond it."""

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
    """Tensors of one shape, of any dtype and device. Another shape is an infinite error.

    scale: the size of the numbers from which both were made, where that isn't the reference's own (0).
    """
    tolerance = roundings * torch.finfo(dtype).eps
    name = what if dtype == torch.float32 else f"{what}, {short(dtype)}"
    if got.shape != want.shape:
        return Difference(f"{name}: shape {tuple(got.shape)}, not {tuple(want.shape)}", math.inf, tolerance)
    found, wanted = got.detach().double().cpu(), want.detach().double().cpu()
    error = float((found - wanted).abs().max()) if wanted.numel() else 0.0
    size = scale or (float(wanted.abs().max()) if wanted.numel() else 0.0) or 1.0
    return Difference(name, error / size, tolerance)


def equal(what: str, got: object, want: object) -> Difference:
    """Things that must be the same to the last bit: tensors, lists, numbers. The error is 0 or infinite."""
    if isinstance(got, Tensor) and isinstance(want, Tensor):
        same = got.shape == want.shape and bool((got.detach().cpu() == want.detach().cpu()).all())
    else:
        same = got == want
    return Difference(what, 0.0 if same else math.inf, 0.0)


def short(dtype: torch.dtype) -> str:
    """A dtype's usual name."""
    return {torch.float32: "fp32", torch.bfloat16: "bf16"}.get(dtype, str(dtype).removeprefix("torch."))


def draw(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    """Normal noise in float64 that depends on `seed` alone, and that bf16 holds exactly.

    So our side, in whatever dtype, and the reference start from the same numbers.
    """
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    return noise.bfloat16().double()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute on so many CPU threads while the context is open."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def outcome(check: Check, bench: CheckContext) -> CheckResult:
    """Run one check. Whatever it raises is its failure: code that can't be run isn't right."""
    began = time.perf_counter()
    try:
        found = list(check.run(bench)) or [Difference("nothing was compared", math.inf, 0.0)]
    except Exception as error:
        found = [Difference(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", math.inf, 0.0)]
    worst = max(found, key=lambda difference: difference.share)
    return CheckResult(
        name=check.name,
        ok=all(difference.ok for difference in found),
        error=worst.error,
        tolerance=worst.tolerance,
        worst=worst.what,
        guards=check.guards,
        advice=check.advice,
        seconds=time.perf_counter() - began,
    )
