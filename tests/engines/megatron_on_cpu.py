"""Megatron-Core on a machine without CUDA: what it asks of CUDA for its books alone, it asks of the CPU."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")


class _OnCpu(TorchFunctionMode):
    """device="cuda" in Megatron's source means the CPU."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        if str(named.get("device", "")).startswith("cuda"):
            named["device"] = CPU
        if function is torch.Tensor.cuda:
            return args[0]
        return function(*args, **named)


class _Stream:
    """A CUDA stream or event on which nothing ever waits."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


@contextlib.contextmanager
def _no_fork(*_: Any, **__: Any) -> Iterator[None]:
    yield


@contextlib.contextmanager
def cuda_is_cpu() -> Iterator[None]:
    """Inside, Megatron-Core computes on the CPU, over gloo. There is no dropout, so no state of CUDA's noise."""
    from megatron.core.tensor_parallel import random

    from groundup.parallel.engines import megatron

    changes: dict[Any, dict[str, Any]] = {
        torch.cuda: {
            "current_device": lambda: CPU,
            "synchronize": lambda *_, **__: None,
            "current_stream": _Stream,
            "default_stream": _Stream,
            "stream": lambda _: contextlib.nullcontext(),
        },
        megatron: {"require_cuda": lambda _: None},
        random: {"model_parallel_cuda_manual_seed": lambda *_, **__: None},
        random.CudaRNGStatesTracker: {"fork": _no_fork},
    }
    with contextlib.ExitStack() as stack:
        for owner, names in changes.items():
            for name, value in names.items():
                stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(_OnCpu())
        yield
