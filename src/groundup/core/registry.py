"""A slot is a folder: every module in it is one interchangeable part.

in:  the name written after `use` in a blueprint ("muon", or "my_package.my_optimizer")
out: that module's part: its one public class derived from Recipe, filled with the other keys
"""

import difflib
import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from groundup.core.recipe import Recipe

REGISTRIES = (
    "groundup.text.ingest.sources",
    "groundup.text.curate.steps",
    "groundup.model.architectures",
    "groundup.parallel.engines",
    "groundup.train.optimizers",
    "groundup.evaluate.tasks",
    "groundup.align.methods",
)


@dataclass(frozen=True)
class Plugin:
    """Marks a recipe's field as filled by a part from `folder` (a package name)."""

    folder: str

    def names(self) -> list[str]:
        """The parts in the folder, by file name. Imports none of them."""
        package = importlib.import_module(self.folder)
        found = (module.name for module in pkgutil.iter_modules(package.__path__))
        return sorted(name for name in found if not name.startswith("_"))

    def load(self, use: str) -> type[Recipe]:
        """The class of the part named `use`.

        Raises ValueError for an unknown name, saying the nearest known one.
        """
        if "." in use:
            return _only_part(importlib.import_module(use))
        names = self.names()
        if use not in names:
            near = difflib.get_close_matches(use, names, n=1)
            hint = f"Did you mean `{near[0]}`? " if near else ""
            raise ValueError(f"there is no part `{use}`. {hint}Known here: {', '.join(names)}")
        return _only_part(importlib.import_module(f"{self.folder}.{use}"))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validate, serialization=core_schema.plain_serializer_function_ser_schema(to_table)
        )

    def _validate(self, value: Any) -> Recipe:
        if isinstance(value, Recipe):
            return value
        if not isinstance(value, dict):
            raise PydanticCustomError(
                "part", "expected a table with the key `use`, got {got}", {"got": repr(value)}
            )
        table = dict(value)
        use = table.pop("use", None)
        if not isinstance(use, str):
            known = ", ".join(self.names())
            raise PydanticCustomError(
                "part", "say which part with `use = ...`; known: {known}", {"known": known}
            )
        try:
            kind = self.load(use)
        except (ValueError, ImportError) as error:
            raise PydanticCustomError("part", "{text}", {"text": str(error)}) from None
        try:
            return kind.model_validate(table)
        except ValidationError as error:
            raise PydanticCustomError("part_fields", "in this part", {"error": error}) from None


def plugin_name(part: Recipe | type[Recipe]) -> str:
    """The name to write after `use`: the file name for our own parts, the dotted module for a user's."""
    module = part.__module__
    return module.rsplit(".", 1)[-1] if module.startswith("groundup.") else module


def is_plugin(recipe: Recipe) -> bool:
    """Whether `recipe` stands in a slot's folder, or in a user's own module."""
    package = recipe.__module__.rsplit(".", 1)[0]
    return package in REGISTRIES or not recipe.__module__.startswith("groundup.")


def to_table(part: Any) -> dict[str, Any]:
    """A part as the table one would write in a blueprint, every field spelled out."""
    fields: dict[str, Any] = part.model_dump()
    return {"use": plugin_name(part)} | fields


def _only_part(module: ModuleType) -> type[Recipe]:
    parts = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Recipe)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]
    if len(parts) != 1:
        found = ", ".join(part.__name__ for part in parts) or "none"
        raise ValueError(f"{module.__name__} must define exactly one public Recipe class, found: {found}")
    return parts[0]
