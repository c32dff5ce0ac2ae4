"""Properties and measured rates of this machine.

in:  `Hardware` (the selected device, dtype and kernels), the workspace
out: `Machine`: names, sizes, measured rates, and the selections with their reasons
"""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from groundup.core.environment import environment
from groundup.doctor.check import short, threads
from groundup.doctor.toy_models import QWEN3
from groundup.parallel import fp8
from groundup.parallel.hardware import Hardware, choose_attention_kernel, cpu_has_fast_bf16, matmul_rate

SECONDS = 0.7
"""Seconds to measure each rate."""


@dataclass(frozen=True)
class Machine:
    """Sizes in bytes, rates per second; 0 or absent where the machine has none."""

    device: str
    cores: int
    memory: int
    memory_free: int
    disk_free: int
    gpu_memory: int
    gpu_memory_free: int
    matmul_flops: dict[str, float]
    """FLOP/s of a large matrix product, by dtype"""
    bandwidth: float
    """bytes read and written by a copy"""
    precision: str
    attention: str
    """the attention kernel of a small model, with the reason"""
    reason: str
    versions: dict[str, str]


def examine(hardware: Hardware, workspace: Path) -> Machine:
    """Collect and measure; takes a few seconds."""
    cuda = hardware.device.type == "cuda"
    facts = environment()
    free, total = torch.cuda.mem_get_info(hardware.device) if cuda else (0, 0)
    memory, memory_free = _memory()
    kernel, why = choose_attention_kernel(QWEN3, hardware)
    with threads(hardware.cores):
        return Machine(
            device=torch.cuda.get_device_name(hardware.device) if cuda else facts["cpu"],
            cores=hardware.cores,
            memory=memory,
            memory_free=memory_free,
            disk_free=shutil.disk_usage(_nearest_folder(workspace)).free,
            gpu_memory=total,
            gpu_memory_free=free,
            matmul_flops=_matmul_rates(hardware),
            bandwidth=_bandwidth(hardware.device),
            precision=hardware.precision,
            attention=f"{kernel.name}: {why}",
            reason=hardware.reason,
            versions=_versions(facts),
        )


def _versions(facts: dict[str, Any]) -> dict[str, str]:
    versions = {"python": facts["python"], **facts["libraries"], "platform": facts["platform"]}
    return versions | ({"cuda": torch.version.cuda} if torch.version.cuda else {})


def _memory() -> tuple[int, int]:
    """Total and free bytes, limited to the container's cgroup."""
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no limit, or the literal "max"
        return total, free
    return min(total, limit), min(free, limit)


def _nearest_folder(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


def _matmul_rates(hardware: Hardware) -> dict[str, float]:
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        # Where bf16 is emulated a large product takes seconds.
        slow = hardware.device.type == "cpu" and dtype == torch.bfloat16 and not cpu_has_fast_bf16()
        rate = matmul_rate(replace(hardware, dtype=dtype), 256 if slow else 2048, SECONDS)
        rates[short(dtype)] = rate
    if hardware.device.type == "cuda" and torch.cuda.get_device_capability(hardware.device) >= fp8.CAPABILITY:
        rates["fp8"] = _fp8_rate(hardware.device)
    return rates


def _fp8_rate(device: torch.device, size: int = 8192) -> float:
    """FLOP/s of a product of fp8 matrices (e4m3, one scale each) with bf16 output."""
    a, b = (torch.randn(size, size, device=device).to(torch.float8_e4m3fn) for _ in range(2))
    scale = torch.ones((), device=device)
    multiply = cast(Callable[..., Tensor], torch._scaled_mm)

    def product() -> None:
        multiply(a, b.T, scale_a=scale, scale_b=scale, out_dtype=torch.bfloat16)

    return 2 * size**3 / _fastest(product, device)


def _bandwidth(device: torch.device, size: int = 2**28) -> float:
    """Bytes per second of a copy, reads and writes both counted."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _fastest(lambda: target.copy_(source), device)


def _fastest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of several runs."""
    best, began = float("inf"), time.perf_counter()
    work()
    while time.perf_counter() - began < SECONDS or best == float("inf"):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best
