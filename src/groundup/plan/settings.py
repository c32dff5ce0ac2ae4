"""Settings without effect: keys that another key of the blueprint switches off.

in:  a blueprint
out: one sentence for each such key that doesn't have its default value

Each recipe declares its own pairs in `without_effect`; this module walks the tree.
"""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from groundup.core.recipe import Recipe, Strict
from groundup.core.registry import is_plugin, plugin_name


def unused_settings(recipe: BaseModel, at: str = "") -> Iterator[str]:
    """The sentences, in the order of the keys. at: the path of the recipe, as `--set` writes it."""
    if isinstance(recipe, Strict):
        for key, reason in recipe.without_effect().items():
            value, default = _resolve(recipe, key)
            if value != default:
                yield f"{_join(at, key)} = {_written(value)} has no effect: {reason}"
    for name in type(recipe).model_fields:
        value = getattr(recipe, name)
        if isinstance(value, BaseModel):
            # The keys of a method stand beside the name of its align step.
            yield from unused_settings(value, at if name == "method" else _join(at, name))
        elif isinstance(value, tuple):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from unused_settings(item, f"{_join(at, name)}.{_entry(item, index)}")


def _resolve(recipe: BaseModel, key: str) -> tuple[Any, Any]:
    """(value, default) of a key of the recipe or, with dots, of a recipe in it."""
    *outer, name = key.split(".")
    for part in outer:
        recipe = getattr(recipe, part)
    return getattr(recipe, name), type(recipe).model_fields[name].get_default(call_default_factory=True)


def _entry(item: BaseModel, index: int) -> str:
    """What names an entry of a list: its `name` or `use`, else its index."""
    name = getattr(item, "name", "")
    if not name and isinstance(item, Recipe) and is_plugin(item):
        name = plugin_name(item)
    return str(name or index)


def _join(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def _written(value: Any) -> str:
    if isinstance(value, Recipe):
        return f'"{plugin_name(value)}"'
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value}"
