"""Hardware: device, dtype and compilation for a runtime, and models prepared for them.

in:  a Runtime (where to run) and the recipe's precision
out: Hardware: device, compute dtype, whether kernels can be compiled; a model that runs on it as fast as it can;
     and the measured rate of matrix products
"""

import ctypes
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch

from groundup.core.errors import GroundupError
from groundup.core.runtime import ActivationCheckpointing, Runtime
from groundup.model.attention import FUSED, AttentionKernel
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.value_head import ValueModel
from groundup.parallel import fp8
from groundup.parallel.activation_checkpoint import checkpoint_activations
from groundup.parallel.compiling import can_compile, set_kernel_cache
from groundup.parallel.cpu import BLOCKS, stack_products
from groundup.parallel.cuda import FLEX_HEAD_DIM, flex
from groundup.parallel.memory_estimate import UNSPLIT, MemoryParts, tokens_that_fit

MICRO_BATCH_TOKENS = {"cpu": 4096, "cuda": 32_768}
"""Tokens of a micro-batch where the runtime names no rows; a CPU's caches then hold one layer's activations."""
MEMORY_FRACTION = 0.9
"""Of a GPU's memory that a training step may use; the rest is the driver's, the allocator's and the loss's."""

Precision = Literal["auto", "fp8", "bf16", "fp32"]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Hardware:
    """Device, dtype and compilation of a model; chosen once per stage by `choose_hardware`."""

    device: torch.device
    dtype: torch.dtype
    """dtype of the arithmetic; parameters are fp32 in any case"""
    cores: int
    can_compile: bool
    reason: str
    """why this dtype and why (not) compiled, for a person"""
    fp8: bool = False
    """whether the inner layers multiply in fp8 while they train"""
    activation_checkpointing: ActivationCheckpointing = "none"

    @property
    def precision(self) -> str:
        """Short name of the precision."""
        return "fp8" if self.fp8 else "bf16" if self.dtype == torch.bfloat16 else "fp32"

    def numerics(self) -> dict[str, Any]:
        """Settings besides the recipe that a result's bits depend on; recorded in every resume state."""
        return {
            "precision": self.precision,
            "compiled": self.can_compile,
            "activation_checkpointing": self.activation_checkpointing,
        }


def choose_hardware(runtime: Runtime, precision: Precision = "auto") -> Hardware:
    """The device, dtype and compilation for `runtime`; sets the number of CPU threads and where kernels are kept.

    `auto` computes in bf16 where the hardware multiplies it fast, else in fp32.
    Raises GroundupError for a device that isn't there, fp8 on one that doesn't multiply it, or compile = "on"
    without a compiler.
    """
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise GroundupError('runtime.device = "cuda", but PyTorch sees no CUDA device. Use "auto" or "cpu"')
    cuda = runtime.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    if precision == "fp8":
        _require_fp8(cuda)
    if not cuda:
        _keep_freed_memory()
    cores = runtime.threads or len(os.sched_getaffinity(0))
    if torch.get_num_threads() != cores:
        torch.set_num_threads(cores)
    fast = torch.cuda.is_bf16_supported() if cuda else cpu_has_fast_bf16()
    dtype = (
        torch.bfloat16 if precision in ("bf16", "fp8") or (precision == "auto" and fast) else torch.float32
    )
    compiles, why = can_compile(runtime, cuda)
    if compiles and set_kernel_cache() is None:
        why += " (kernels are compiled again after a reboot: ~/.cache/groundup can't hold them)"
    chosen = Hardware(
        device, dtype, cores, compiles, "", precision == "fp8", runtime.activation_checkpointing
    )
    speed = "" if fast else ", which has no fast bf16"
    return replace(chosen, reason=f"{chosen.precision} on {device.type}{speed}; {why}")


def _require_fp8(cuda: bool) -> None:
    since = ".".join(map(str, fp8.CAPABILITY))
    hint = f'It needs an NVIDIA GPU of compute capability {since} or later (Ada, Hopper). Use "auto"'
    if not cuda:
        raise GroundupError(f'precision = "fp8", but this runs on a CPU. {hint}')
    capability = torch.cuda.get_device_capability()
    if capability < fp8.CAPABILITY:
        name = torch.cuda.get_device_name()
        raise GroundupError(
            f'precision = "fp8", but {name} has compute capability {capability[0]}.{capability[1]}. {hint}'
        )


def _keep_freed_memory() -> None:
    """Let the C library keep large freed blocks for the next tensor instead of giving them back to the system.

    Every training step allocates the same tensors again; mapping their pages each time costs a fifth of a step
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


def micro_batch_rows(
    runtime: Runtime,
    config: DecoderConfig,
    time: int,
    batch_rows: int,
    device: torch.device,
    parts: MemoryParts = UNSPLIT,
) -> int:
    """Rows of a micro-batch: the largest divisor of `batch_rows` that the runtime allows, so all have one shape.

    Where the runtime names no number: as many tokens as keep the device busy; on a GPU no more than its memory holds
    of a decoder with this `config`. Kernels are compiled for this shape.
    """
    tokens = MICRO_BATCH_TOKENS[device.type]
    if device.type == "cuda":
        tokens = min(
            tokens, tokens_that_fit(config, runtime.activation_checkpointing, usable_memory(device), parts)
        )
    limit = runtime.micro_batch or max(1, tokens // time)
    return max(rows for rows in range(1, batch_rows + 1) if batch_rows % rows == 0 and rows <= limit)


def usable_memory(device: torch.device) -> int:
    """Bytes that a training may use. Of the whole memory, not of what is free now: a resumed run must see the same."""
    if device.type == "cuda":
        return int(MEMORY_FRACTION * torch.cuda.get_device_properties(device).total_memory)
    return int(MEMORY_FRACTION * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def compiled(function: F, hardware: Hardware) -> F:
    """`function` compiled for the shapes it is called with, or itself where that can't be done.

    dynamic=False: a kernel depends on its own shapes alone, never on which others came before it. A resumed run
    sees other shapes first, and must still end in the same bits.
    """
    return cast(F, torch.compile(function, dynamic=False)) if hardware.can_compile else function


def choose_attention_kernel(config: DecoderConfig, hardware: Hardware) -> tuple[AttentionKernel, str]:
    """The attention kernel for this decoder on this hardware, and why, for a person."""
    if not hardware.can_compile:
        return FUSED, "PyTorch's fused kernel with a mask: the faster ways must be compiled"
    if hardware.device.type == "cpu":
        return BLOCKS, "plain products over blocks of queries: compiled, faster on a CPU than a fused kernel"
    if config.head_dim < FLEX_HEAD_DIM:
        return FUSED, f"PyTorch's fused kernel with a mask: a head has less than {FLEX_HEAD_DIM} numbers"
    return flex(), "FlexAttention: blocks that no document may see aren't computed"


def prepare_model(model: Decoder | ValueModel, hardware: Hardware) -> None:
    """Put `model` on the hardware: device, compute dtype, precision, recomputation, kernels, compilation.

    The order matters: what is compiled must be whole. Layers are compiled one by one: they are alike, so the same
    kernels serve all of them and compiling takes as long as for one layer; beside them the last norm is. Only
    training steps run compiled; see `Decoder.hidden`.
    """
    if not any(parameter.is_meta for parameter in model.parameters()):
        model.to(hardware.device)
    model.compute_dtype = hardware.dtype
    decoder = model.decoder if isinstance(model, ValueModel) else model
    if hardware.fp8:
        fp8.use_fp8(decoder)
    checkpoint_activations(decoder, hardware.activation_checkpointing)
    decoder.set_attention_kernel(choose_attention_kernel(decoder.config, hardware)[0])
    if not hardware.can_compile:
        return
    for layer in decoder.model.layers:
        stack_products(layer)
        layer.compile(dynamic=False)
    decoder.model.norm.compile(dynamic=False)


def memory_held(device: torch.device) -> int:
    """Bytes: the most that was allocated on a GPU; what the process holds now on a CPU (Linux)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    resident_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return resident_pages * os.sysconf("SC_PAGE_SIZE")


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
