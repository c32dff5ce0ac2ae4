"""What engines of other projects have in common: how they are found, where their ranks meet, what they refuse.

in:  a Job, and the name of the engine's extra
out: the library; a process group even for one rank; GroundupError where something is missing or can't be done
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
    """The module `name`. Raises GroundupError where it isn't installed, saying how it is."""
    # They call what PyTorch has given new names since.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what else could be installed
            return importlib.import_module(name)
    except ImportError as error:
        raise GroundupError(
            f'runtime.engine: use = "{extra}" needs {name}, which can\'t be imported ({error}). '
            f"Run `pip install 'groundup[{extra}]'`, or take the engine `native`"
        ) from None


def init_process_group(device: torch.device) -> None:
    """Be in a process group, alone if need be; the local rank is where these libraries look for it."""
    if not dist.is_initialized():
        backend = "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo"
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    devices = torch.cuda.device_count() if device.type == "cuda" else dist.get_world_size()
    os.environ.setdefault("LOCAL_RANK", str(dist.get_rank() % devices))


def refuse_axes(setup: EngineSpec, name: str, allowed: frozenset[str]) -> None:
    """Raises GroundupError where the layout has an axis that the engine doesn't know."""
    for axis in ("replicate", "expert", "context", "tensor", "pipeline"):
        size = getattr(setup.layout, axis)
        if size > 1 and axis not in allowed:
            raise GroundupError(
                f'runtime.layout.{axis} = {size}: the engine "{name}" has no such axis here. Set {axis} = 1, or take '
                'runtime.engine.use = "native"'
            )


def require_adamw(optimizer: torch.optim.Optimizer, name: str, why: str) -> None:
    """Raises GroundupError for any other optimizer."""
    if not isinstance(optimizer, torch.optim.AdamW):
        raise GroundupError(
            f'runtime.engine: the engine "{name}" trains with AdamW: {why}. Set pretrain.optimizer.use = "adamw"'
        )


def refuse_fp8(setup: EngineSpec, name: str) -> None:
    """Raises GroundupError where fp8 is asked for."""
    if setup.hardware.fp8:
        raise GroundupError(
            f'precision = "fp8": the engine "{name}" computes in bf16 or fp32. Set "auto", or take '
            'runtime.engine.use = "native"'
        )
