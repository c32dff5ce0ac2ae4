"""Pins every default and version: fields at their default aren't in fingerprints, so a change would go unnoticed.

When a default changes on purpose, raise the `version` of the class and write the new table with
`python tests/golden/test_defaults.py`.
"""

import json
from pathlib import Path
from typing import Any

from groundup.core.recipe import Recipe
from groundup.core.registry import REGISTRIES, Plugin
from groundup.pipeline import Blueprint

GOLDEN = Path(__file__).with_name("defaults.json")


def recipes() -> dict[str, type[Recipe]]:
    """Every stage's recipe and every plugin, by name."""
    by_name: dict[str, type[Recipe]] = {}
    pending: list[type[Recipe]] = [Blueprint]
    pending += [Plugin(folder).load(name) for folder in REGISTRIES for name in Plugin(folder).names()]
    while pending:
        kind = pending.pop()
        by_name[f"{kind.__module__.removeprefix('groundup.')}.{kind.__name__}"] = kind
        for field in kind.model_fields.values():
            value = field.get_default(call_default_factory=True)
            if isinstance(value, Recipe) and type(value) not in by_name.values():
                pending.append(type(value))
    return by_name


def table() -> dict[str, Any]:
    return {
        name: {"version": kind.version}
        | {
            key: json.loads(json.dumps(_plain(field.get_default(call_default_factory=True)), default=repr))
            for key, field in kind.model_fields.items()
            if key != "runtime"
        }
        for name, kind in sorted(recipes().items())
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Recipe):
        return type(value).__name__
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def test_every_default_and_version_is_pinned() -> None:
    golden, now = json.loads(GOLDEN.read_text()), table()
    changed = [
        f"{name}.{key}: {golden.get(name, {}).get(key)!r} -> {value!r}"
        for name, fields in now.items()
        for key, value in fields.items()
        if golden.get(name, {}).get(key) != value
    ]
    assert not changed, "raise `version` of what changed, then run this file: " + "; ".join(changed)
    assert golden.keys() == now.keys()


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(table(), indent=1) + "\n")
