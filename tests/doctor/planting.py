"""Bugs as developers make them: one expression in the source of a function, changed.

in:  where the function is, the text that changes, and into what
out: the function with the bug in every module that uses it
"""

import importlib
import inspect
import sys
import textwrap
from dataclasses import replace
from typing import Any

import pytest

from groundup.model.attention import AttentionKernel


def plant(patch: pytest.MonkeyPatch, where: str, old: str, new: str) -> None:
    """Change `old` to `new` in the function at "module:name" or "module:Class.name", of the package groundup."""
    module_name, _, path = where.partition(":")
    module = importlib.import_module(f"groundup.{module_name}")
    *outer, name = path.split(".")
    owner = getattr(module, outer[0]) if outer else module
    found = inspect.getattr_static(owner, name)
    source = textwrap.dedent(inspect.getsource(getattr(found, "__func__", found)))
    assert source.count(old) == 1, f"{where} has {source.count(old)} times {old!r}: plant the bug anew"
    space: dict[str, Any] = dict(vars(module))
    exec(compile(source.replace(old, new), f"<a bug in {where}>", "exec"), space)
    if outer:
        patch.setattr(owner, name, space[name])
    else:
        put(patch, found, space[name])


def put(patch: pytest.MonkeyPatch, old: Any, new: Any) -> None:
    """Replace a function wherever a module of the package has it, attention kernels included."""
    for module_name, module in list(sys.modules.items()):
        if not module_name.startswith("groundup"):
            continue
        for name, value in list(vars(module).items()):
            if value is old:
                patch.setattr(module, name, new)
            elif isinstance(value, AttentionKernel) and old in (value.make_mask, value.attend):
                parts = {part: new for part in ("see", "attend") if getattr(value, part) is old}
                patch.setattr(module, name, replace(value, **parts))
