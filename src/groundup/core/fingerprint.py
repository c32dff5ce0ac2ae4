"""The one canonical spelling of a recipe, and the fingerprint made of it.

in:  a stage's name and version, its recipe, its inputs' fingerprints, the digest of what it reads outside
out: the spelling as plain JSON, and 64 hex digits of its SHA-256

Fields left at their default are not spelled, so a new knob never forks an old artifact. A changed default
would hide that way; a golden test pins every default and says to raise `version`.
"""

import hashlib
import json
from typing import Any

from groundup.core.recipe import Recipe
from groundup.core.registry import plugin_name


def canonical_json(value: Any) -> Any:
    """What of `value` bears identity, as plain JSON. Raises TypeError for what has no stable spelling."""
    if isinstance(value, Recipe):
        said = {
            name: canonical_json(getattr(value, name))
            for name, field in type(value).model_fields.items()
            if name not in value.not_identity
            and getattr(value, name) != field.get_default(call_default_factory=True)
        }
        return {"part": f"{plugin_name(value)}.{type(value).__name__}/{value.version}"} | said
    if isinstance(value, dict):
        return {str(key): canonical_json(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical_json(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(
        f"a recipe can't hold a {type(value).__name__}: it has no spelling that is the same tomorrow"
    )


def fingerprint_payload(
    stage: str, version: int, recipe: Recipe, inputs: dict[str, str], external: Any
) -> dict[str, Any]:
    """Everything that makes an artifact what it is, as plain JSON."""
    return {
        "stage": stage,
        "version": version,
        "recipe": canonical_json(recipe),
        "inputs": inputs,
        "external_digest": canonical_json(external),
    }


def digest(said: Any) -> str:
    """SHA-256 (hex) of a spelling."""
    return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
