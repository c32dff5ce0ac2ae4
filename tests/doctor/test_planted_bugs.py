"""Every bug planted in the real code fails the check that is named for it."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from types import ModuleType
from typing import Any

import pytest
import torch
from bugs import BUGS
from planting import plant, put
from torch import Tensor, nn

from groundup.align import objectives
from groundup.core.runtime import Runtime
from groundup.doctor import doctor
from groundup.doctor.check import Check
from groundup.infer import kv_cache, sampling
from groundup.model import attention, grouped_gemm, layers, lora, losses, moe, rotary
from groundup.parallel import cpu, fp8
from groundup.parallel.hardware import choose_hardware

PUBLIC = {
    objectives: ("objectives: ",),
    losses: ("losses: ",),
    attention: ("layers: ",),
    rotary: ("layers: ",),
    layers: ("layers: ", "model: logits"),
    moe: ("layers: feed", "model: logits", "model: experts"),
    grouped_gemm: ("layers: grouped",),
    fp8: ("layers: fp8",),
    lora: ("model: adapters",),
    cpu: ("layers: ",),
    kv_cache: ("generation: KV cache",),
    sampling: ("generation: sampling", "generation: random"),
}
"""Modules under test, and the checks of each."""


def failing(checks: Sequence[Check]) -> set[str]:
    """Names of the checks that fail, in fp32 and eager mode."""
    hardware = choose_hardware(Runtime(device="cpu", threads=1, compile="off"), "fp32")
    return {result.name for result in doctor.run(checks, hardware) if not result.ok}


def beginning(*names: str) -> list[Check]:
    return [check for check in doctor.CHECKS if check.name.startswith(names)]


def nearby(check: str) -> list[Check]:
    """The check and others of its group; of slow groups only the quick checks."""
    kind = check.split(":")[0]
    slow = {"generation", "training", "alignment", "model"}
    quick = (
        "generation: KV cache",
        "generation: sampling",
        "training: AdamW",
        "training: schedules",
        "model: batch",
    )
    return [
        one for one in beginning(f"{kind}: ") if kind not in slow or one.name == check or one.name in quick
    ]


@pytest.mark.parametrize(
    ("where", "old", "new", "check", "also"), BUGS, ids=[f"{w}-{n}" for w, _, n, _, _ in BUGS]
)
def test_a_planted_bug_fails_its_check(
    where: str, old: str, new: str, check: str, also: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, where, old, new)
    failed = failing(nearby(check))
    assert check in failed
    assert "all" in also or failed <= {check, *also}


class Uncorrected(torch.optim.Optimizer):
    """AdamW without bias correction."""

    def __init__(
        self, groups: Any, lr: float, betas: tuple[float, float], eps: float = 1e-8, **_: Any
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                mean, square = self.state[p].setdefault("both", [torch.zeros_like(p), torch.zeros_like(p)])
                mean.lerp_(p.grad, 1 - group["betas"][0])
                square.lerp_(p.grad**2, 1 - group["betas"][1])
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * mean / (square.sqrt() + group["eps"]))


def test_a_dropped_bias_correction_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim, "AdamW", Uncorrected)
    assert failing(beginning("training: AdamW", "training: schedules")) == {"training: AdamW"}


def public(module: ModuleType) -> list[tuple[Any, str]]:
    """(owner, name) of every public function, every nn.Module's forward and the cache's update."""
    functions: list[tuple[Any, str]] = []
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", "") != module.__name__:
            continue
        if inspect.isfunction(value):
            functions.append((module, name))
        elif inspect.isclass(value) and issubclass(value, nn.Module):
            functions.append((value, "forward"))
        elif value is kv_cache.StaticKVCache:
            functions += [(value, "cache_update")]
    return functions


def disturbed(value: Any) -> Any:
    """The value with floats slightly changed, bools negated, integers incremented."""
    if isinstance(value, Tensor):
        if value.dtype == torch.bool:
            return ~value
        return value * 1.01 + 0.01 if value.is_floating_point() else value + 1
    if isinstance(value, tuple):
        return tuple(disturbed(part) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{field.name: disturbed(getattr(value, field.name)) for field in fields(value)}
        )
    assert not isinstance(value, bool | int | float | list), value
    return value


def disturbing(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with a wrong result, or without its side effect if it returns None."""
    if inspect.signature(function).return_annotation is None:
        return lambda *args, **kwargs: None
    return lambda *args, **kwargs: disturbed(function(*args, **kwargs))


EXCLUDED = {
    "norm",
    "stack_products",
    "feed_forward",
    "sparse_layers",
    "adapters",
    "save_adapters",
    "load_adapters",
}
"""Functions that choose or list modules, whose `forward` is disturbed instead; and adapter files."""


@pytest.mark.parametrize(
    ("module", "owner", "name"),
    [
        pytest.param(module, owner, name, id=f"{getattr(owner, '__name__', '')}.{name}")
        for module in PUBLIC
        for owner, name in public(module)
        if name not in EXCLUDED
    ],
)
def test_a_wrong_public_function_fails_a_check(
    module: ModuleType, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(owner, name)
    if inspect.ismodule(owner):
        put(monkeypatch, original, disturbing(original))
    else:
        monkeypatch.setattr(owner, name, disturbing(original))
    assert any(failing([check]) for check in beginning(*PUBLIC[module]))
