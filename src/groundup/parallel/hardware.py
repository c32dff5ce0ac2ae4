"""What this machine can do, and a model fitted to it.

in:  a Site (where to run) and the recipe's precision
out: Hardware: device, compute dtype, whether kernels can be compiled; and the measured rate of matrix products
"""

import ctypes
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch

from groundup.core.errors import GroundupError
from groundup.core.recipe import Site
from groundup.model.decoder import Decoder
from groundup.model.heads import ScalarModel
from groundup.parallel.cpu import BLOCKS, stacked

MICRO_BATCH_TOKENS = {"cpu": 4096, "cuda": 32_768}
"""Tokens of a micro-batch where the site names no rows; a CPU's caches then hold one layer's activations."""

Precision = Literal["auto", "bf16", "fp32"]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Hardware:
    """Where a model runs and how: chosen once per stage by `choose`."""

    device: torch.device
    dtype: torch.dtype
    """dtype of the arithmetic; parameters are fp32 in any case"""
    cores: int
    can_compile: bool
    reason: str
    """why this dtype and why (not) compiled, for a person"""

    @property
    def precision(self) -> str:
        """The compute dtype's short name."""
        return "bf16" if self.dtype == torch.bfloat16 else "fp32"


def choose(site: Site, precision: Precision = "auto") -> Hardware:
    """The device, dtype and compilation for `site`; sets the number of CPU threads.

    `auto` computes in bf16 where the hardware multiplies it fast, else in fp32.
    Raises GroundupError for a device that isn't there, or compile = "on" without a compiler.
    """
    if site.device == "cuda" and not torch.cuda.is_available():
        raise GroundupError('site.device = "cuda", but PyTorch sees no CUDA device. Use "auto" or "cpu"')
    cuda = site.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    if not cuda:
        _keep_freed_memory()
    cores = site.threads or len(os.sched_getaffinity(0))
    if torch.get_num_threads() != cores:
        torch.set_num_threads(cores)
    fast = torch.cuda.is_bf16_supported() if cuda else cpu_has_fast_bf16()
    dtype = torch.bfloat16 if precision == "bf16" or (precision == "auto" and fast) else torch.float32
    can_compile, why = _can_compile(site, cuda)
    name = f"{'bf16' if dtype == torch.bfloat16 else 'fp32'} on {device.type}"
    speed = "" if fast else ", which has no fast bf16"
    return Hardware(device, dtype, cores, can_compile, f"{name}{speed}; {why}")


def _keep_freed_memory() -> None:
    """Let the C library keep large freed blocks for the next tensor instead of giving them back to the system.

    Every training step allocates the same tensors anew; mapping their pages each time costs a fifth of a step
    on a CPU. Only glibc has this switch; elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        most_mapped, trim_threshold, top_pad = -4, -1, -2
        for option, value in ((most_mapped, 0), (trim_threshold, 2**31 - 1), (top_pad, 64 * 2**20)):
            mallopt(option, value)


def cpu_has_fast_bf16() -> bool:
    """Whether the CPU has bf16 instructions (AVX512-BF16 or AMX); elsewhere bf16 is slower than fp32."""
    cpu = cast(Any, torch.cpu)
    checks = (getattr(cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check is not None)


def _can_compile(site: Site, cuda: bool) -> tuple[bool, str]:
    if site.compile == "off":
        return False, 'eager, since site.compile = "off"'
    missing = _missing_for_compile(cuda)
    if missing and site.compile == "on":
        raise GroundupError(f'site.compile = "on", but {missing}. Install it, or use "auto"')
    if missing:
        return False, f"eager, since {missing} (training is about half as fast)"
    return True, "compiled"


def _missing_for_compile(cuda: bool) -> str:
    """What compiled kernels need and this machine lacks; "" where they can be made."""
    compiler = os.environ.get("CXX", "g++")
    if not cuda and not (shutil.which(compiler) or shutil.which("clang++")):
        return "there is no C++ compiler (g++)"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Python's headers (Python.h, in the package python3-dev) are missing"
    return ""


def rows_per_micro_batch(site: Site, time: int, batch_rows: int, device: torch.device) -> int:
    """Rows of a micro-batch: the largest divisor of `batch_rows` that the site allows.

    So all of them have one shape, for which the kernels are compiled.
    """
    wanted = site.micro_batch or max(1, MICRO_BATCH_TOKENS[device.type] // time)
    return max(rows for rows in range(1, batch_rows + 1) if batch_rows % rows == 0 and rows <= wanted)


def compiled(function: F, hardware: Hardware) -> F:
    """`function` compiled for the shapes it is called with, or itself where that can't be done.

    dynamic=False: a kernel depends on its own shapes alone, never on which others came before it. A resumed run
    sees other shapes first, and must still end in the same bits.
    """
    return cast(F, torch.compile(function, dynamic=False)) if hardware.can_compile else function


def fit(model: Decoder | ScalarModel, hardware: Hardware) -> None:
    """Put `model` on the hardware: device, compute dtype, attention kernel, compiled layers.

    Layers are compiled one by one: they are alike, so the same kernels serve all of them and compiling takes as
    long as for one layer. Only training steps run compiled; see `Decoder.hidden`.
    """
    model.to(hardware.device)
    model.compute_dtype = hardware.dtype
    decoder = model.decoder if isinstance(model, ScalarModel) else model
    if not hardware.can_compile:
        return
    if hardware.device.type == "cpu":
        decoder.use(BLOCKS)
    for layer in decoder.model.layers:
        for part in layer.modules():
            if hasattr(part, "project"):
                cast(Any, part).project = stacked
        layer.compile(dynamic=False)


def matmul_rate(hardware: Hardware, size: int = 2048, seconds: float = 1.0) -> float:
    """FLOP/s of a large square matrix product in the compute dtype: the best of those tried in `seconds`."""
    size = size * 4 if hardware.device.type == "cuda" else size
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(size, size, generator=generator).to(hardware.device, hardware.dtype)
    best, began = 0.0, time.perf_counter()
    while time.perf_counter() - began < seconds or best == 0.0:
        start = time.perf_counter()
        a @ a
        if hardware.device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best
