"""Fingerprint of an artifact: SHA-256 of one canonical JSON form of everything that decides its content.

in:  a stage's name and version, its recipe, the content digests of its inputs, the digest of its external files
out: the payload as plain JSON, and its digest as 64 hex digits

Fields at their default are omitted, so that a new field does not change the fingerprints of existing artifacts. A
changed default would go unnoticed; a golden test pins every default and asks for a raised `version`.
"""

import hashlib
import json
from typing import Any

from groundup.core.recipe import Recipe
from groundup.core.registry import plugin_name, plugin_source_digest


def canonical_json(value: Any) -> Any:
    """The part of `value` that belongs to its identity, as plain JSON. Raises TypeError for other types."""
    if isinstance(value, Recipe):
        fields = {
            name: canonical_json(getattr(value, name))
            for name, field in type(value).model_fields.items()
            if name not in value.not_identity
            and getattr(value, name) != field.get_default(call_default_factory=True)
        }
        source = plugin_source_digest(value)
        identity = {"part": f"{plugin_name(value)}.{type(value).__name__}/{value.version}"}
        return identity | ({"source": source} if source else {}) | fields
    if isinstance(value, dict):
        return {str(key): canonical_json(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical_json(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"a recipe can't hold a {type(value).__name__}: it has no canonical JSON form")


def fingerprint_payload(
    stage: str, version: int, recipe: Any, inputs: dict[str, str], external: Any
) -> dict[str, Any]:
    """Everything that decides an artifact's content, as plain JSON. inputs: content digests by parameter name."""
    return {
        "stage": stage,
        "version": version,
        "recipe": canonical_json(recipe),
        "inputs": inputs,
        "external": canonical_json(external),
    }


def digest(payload: Any) -> str:
    """SHA-256 (hex) of a JSON value."""
    return hashlib.sha256(json.dumps(payload, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
