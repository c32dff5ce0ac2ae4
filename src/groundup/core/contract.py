"""Whether a class satisfies a protocol or a base class, in words.

in:  a class, and the Protocol or base class that it has to satisfy
out: what is missing or wrong, one phrase each; empty if nothing is
"""

import inspect
from functools import lru_cache
from inspect import Parameter, Signature
from typing import Any

from pydantic import BaseModel

from groundup.core.recipe import Recipe


@lru_cache(maxsize=1024)
def violations(kind: type[Recipe], contract: type | None) -> tuple[str, ...]:
    """What keeps `kind` from satisfying `contract`: members that it lacks, parameters that differ."""
    if contract is None:
        return ()
    protocol = getattr(contract, "_is_protocol", False)
    if not protocol and not issubclass(kind, contract):
        return (f"is not derived from {contract.__module__}.{contract.__name__}",)
    members = _members(contract)
    problems = (_member_violation(kind, name, member, protocol) for name, member in members.items())
    return tuple(problem for problem in problems if problem)


def _members(contract: type) -> dict[str, Any]:
    """The public members that a contract declares, with their function or property; None for plain attributes."""
    members: dict[str, Any] = {}
    for base in reversed(contract.__mro__):
        if base not in Recipe.__mro__ and base.__module__ != "typing":
            members |= dict.fromkeys(inspect.get_annotations(base)) | vars(base)
    return {
        name: member
        for name, member in members.items()
        if not name.startswith("_") and not hasattr(BaseModel, name)
    }


def _member_violation(kind: type[Recipe], name: str, member: Any, protocol: bool) -> str:
    """What is wrong with one member of `kind`; empty if nothing is."""
    declared = _function(member)
    if not inspect.isfunction(declared):
        return "" if name in kind.model_fields or hasattr(kind, name) else f"has no `{name}`"
    parameters = list(inspect.signature(declared).parameters.values())[1:]  # without self or cls
    call = f"{name}({', '.join(item.name for item in parameters)})"
    own = inspect.getattr_static(kind, name, None)
    if own is None or name in kind.model_fields:
        return f"has no method `{call}`"
    if own is member:
        abstract = protocol or getattr(declared, "__isabstractmethod__", False)
        return f"does not implement `{call}`" if abstract else ""
    if not callable(_function(own)):
        return f"has `{name}`, but not as a method `{call}`"
    problem = _call_violation(parameters, _function(own))
    return f"has a method `{name}` that can't be called as `{call}`: {problem}" if problem else ""


def _call_violation(parameters: list[Parameter], own: Any) -> str:
    """Why `own` can't be called with the contract's parameters, those with a default by name; empty if it can."""
    by_name = {
        item.name: None
        for item in parameters
        if item.kind is Parameter.KEYWORD_ONLY or item.default is not Parameter.empty
    }
    by_position = [item.name for item in parameters if item.name not in by_name]
    try:
        Signature(list(inspect.signature(own).parameters.values())[1:]).bind(*by_position, **by_name)
    except TypeError as error:
        return str(error)
    return ""


def _function(member: Any) -> Any:
    return member.__func__ if isinstance(member, classmethod | staticmethod) else member
