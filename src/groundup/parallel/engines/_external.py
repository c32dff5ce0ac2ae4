"""Shared parts of the external engines: import, process group, checks of what they don't support.

in:  EngineSpec, and the name of the engine's extra
out: the library; a process group even for one rank; GroundupError where something is missing or unsupported
"""

import importlib
import os
import warnings
from functools import cache
from typing import Any

import torch
import torch.distributed as dist

from groundup.core.errors import GroundupError
from groundup.parallel.engine import EngineSpec


@cache
def library(name: str, extra: str) -> Any:
    """The module `name`. Raises GroundupError with the install command where it can't be imported."""
    # They call deprecated names of PyTorch.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about optional dependencies
            return importlib.import_module(name)
    except ImportError as error:
        raise GroundupError(
            f'runtime.engine: use = "{extra}" needs {name}, which can\'t be imported ({error}). '
            f"Run `pip install 'groundup[{extra}]'`, or use the engine `native`"
        ) from None


def init_process_group(device: torch.device) -> None:
    """Create a process group of one rank where there is none, and set LOCAL_RANK, which these libraries read."""
    if not dist.is_initialized():
        backend = "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo"
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    devices = torch.cuda.device_count() if device.type == "cuda" else dist.get_world_size()
    os.environ.setdefault("LOCAL_RANK", str(dist.get_rank() % devices))


def refuse_axes(setup: EngineSpec, name: str, allowed: frozenset[str]) -> None:
    """Raises GroundupError where the layout uses an axis that the engine doesn't support."""
    for axis in ("replicate", "expert", "context", "tensor", "pipeline"):
        size = getattr(setup.layout, axis)
        if size > 1 and axis not in allowed:
            raise GroundupError(
                f'runtime.layout.{axis} = {size}: the engine "{name}" does not support it here. Set {axis} = 1, or use '
                'runtime.engine.use = "native"'
            )


def require_adamw(optimizer: torch.optim.Optimizer, name: str, why: str) -> None:
    """Raises GroundupError for any other optimizer."""
    if not isinstance(optimizer, torch.optim.AdamW):
        raise GroundupError(
            f'runtime.engine: the engine "{name}" trains with AdamW: {why}. Set pretrain.optimizer.use = "adamw"'
        )


def refuse_fp8(setup: EngineSpec, name: str) -> None:
    """Raises GroundupError where the precision is fp8."""
    if setup.hardware.fp8:
        raise GroundupError(
            f'precision = "fp8": the engine "{name}" computes in bf16 or fp32. Set "auto", or use '
            'runtime.engine.use = "native"'
        )
