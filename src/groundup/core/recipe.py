"""Recipe: what a stage makes.

in:  keys of a blueprint
out: a frozen, validated object; only recipes enter an artifact's fingerprint, a `Runtime` never does
"""

import difflib
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """Frozen model; an unknown key is refused, naming the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        return refuse_unknown_keys(cls, value)

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> Self:
        """Refuses `min_x` above `max_x`: nothing could pass."""
        for low_name in type(self).model_fields:
            high_name = low_name.replace("min_", "max_", 1)
            low, high = getattr(self, low_name), getattr(self, high_name, None)
            if low_name.startswith("min_") and low is not None and high is not None and low > high:
                raise ValueError(f"{low_name} = {low} is above {high_name} = {high}: nothing can pass")
        return self

    def without_effect(self) -> dict[str, str]:
        """Keys that the values of other keys switch off, with the reason; `a.b` is key `b` of the recipe `a`.

        The user is told about those that don't have their default value.
        """
        return {}


class Recipe(Strict):
    """Base of every recipe and plugin: frozen, no unknown keys, every field has a default."""

    model_config = ConfigDict(validate_default=True)

    version: ClassVar[int] = 1
    """Raised by hand when the meaning of the recipe changes, so that its artifacts are rebuilt."""
    not_identity: ClassVar[frozenset[str]] = frozenset()
    """Fields that name locations, not content; never part of a fingerprint."""


def refuse_unknown_keys(kind: type[BaseModel], value: Any) -> Any:
    """Return `value`; raise for a key that is no field of `kind`, naming the nearest field."""
    if not isinstance(value, dict):
        return value
    known = list(kind.model_fields)
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"Did you mean `{near[0]}`?" if near else f"Known keys: {', '.join(known) or 'none'}"
            raise PydanticCustomError("unknown_key", "unknown key. {hint}", {"key": str(key), "hint": hint})
    return value
