"""Plants a bug: replaces one expression in the source of a function.

in:  the function's path, the source text to replace, its replacement
out: the changed function in every module that uses it
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
    function = inspect.getattr_static(owner, name)
    source = textwrap.dedent(inspect.getsource(getattr(function, "__func__", function)))
    assert source.count(old) == 1, f"{where} has {source.count(old)} times {old!r}: update the bug"
    space: dict[str, Any] = dict(vars(module))
    exec(compile(source.replace(old, new), f"<a bug in {where}>", "exec"), space)
    if outer:
        patch.setattr(owner, name, space[name])
    else:
        put(patch, function, space[name])


def put(patch: pytest.MonkeyPatch, old: Any, new: Any) -> None:
    """Replace a function in every module of the package and in attention kernels."""
    for module_name, module in list(sys.modules.items()):
        if not module_name.startswith("groundup"):
            continue
        for name, value in list(vars(module).items()):
            if value is old:
                patch.setattr(module, name, new)
            elif isinstance(value, AttentionKernel) and old in (value.make_mask, value.attend):
                fields = {field: new for field in ("make_mask", "attend") if getattr(value, field) is old}
                patch.setattr(module, name, replace(value, **fields))
