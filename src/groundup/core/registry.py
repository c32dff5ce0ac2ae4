"""Registries of plugins: each is a folder whose modules hold one plugin each.

in:  the name after `use` in a blueprint: a file of the folder ("muon"), a dotted module ("my_package.my_optimizer"),
     or a module next to the blueprint ("my_optimizer")
out: the plugin: the module's one public class derived from Recipe, filled with the other keys of the table

A class is used only if it satisfies its registry's protocol; see contract.py.
"""

import difflib
import hashlib
import importlib
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationError, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from groundup.core import local_plugins
from groundup.core.contract import violations
from groundup.core.recipe import Recipe

REGISTRIES = {
    "groundup.text.ingest.sources": "groundup.text.ingest.types:Source",
    "groundup.text.curate.steps": "groundup.text.curate.types:Step",
    "groundup.model.architectures": "groundup.model.architectures:Architecture",
    "groundup.parallel.engines": "groundup.parallel.engines:EngineRecipe",
    "groundup.train.optimizers": "groundup.train.optimizers:Optimizer",
    "groundup.evaluate.tasks": "groundup.evaluate.tasks:Task",
    "groundup.align.data.datasets": "groundup.align.data.dataset:Dataset",
    "groundup.evaluate.verifiers": "groundup.evaluate.verifiers:Verifier",
    "groundup.align.methods": "groundup.align.methods:Method",
}
"""Every registry's folder (a package), and the protocol or base class that its plugins satisfy."""
FOLDER = "plugin_folder"
"""Key of the validation context: the folder in which local modules are looked up."""


@dataclass(frozen=True)
class Plugin:
    """Annotation of a recipe's field that is filled by a plugin from `folder` (a package name)."""

    folder: str

    @property
    def noun(self) -> str:
        """What one plugin of this registry is called: `optimizer`."""
        return self.folder.rsplit(".", 1)[-1].removesuffix("s")

    def names(self) -> list[str]:
        """The plugins in the folder, by file name. Imports none of them."""
        package = importlib.import_module(self.folder)
        names = (module.name for module in pkgutil.iter_modules(package.__path__))
        return sorted(name for name in names if not name.startswith("_"))

    def load(self, use: str, folder: Path | None = None) -> type[Recipe]:
        """The class of the plugin named `use`. `folder`: where local modules are looked up; None = nowhere.

        Raises ValueError for an unknown name, naming the nearest known one, and for a class that does not satisfy
        the registry's protocol, naming what is missing.
        """
        plugin = _plugin_class(self._module(use, folder))
        missing = violations(plugin, self._contract())
        if missing:
            raise ValueError(f"`{use}` is no {self.noun}: its class {plugin.__name__} {'; '.join(missing)}")
        return plugin

    def _module(self, use: str, folder: Path | None) -> ModuleType:
        names = self.names()
        if use in names:
            return importlib.import_module(f"{self.folder}.{use}")
        try:
            if "." in use:
                return importlib.import_module(use)
            if folder is not None and use.isidentifier() and (folder / f"{use}.py").is_file():
                return local_plugins.load(folder / f"{use}.py")
        except Exception as error:
            raise ValueError(f"`{use}` can't be imported: {type(error).__name__}: {error}") from error
        near = difflib.get_close_matches(use, names, n=1)
        hint = f"Did you mean `{near[0]}`? " if near else ""
        own = f"; or a module of your own: {use}.py in {folder.resolve()}" if folder is not None else ""
        raise ValueError(f"there is no {self.noun} `{use}`. {hint}Known: {', '.join(names)}{own}")

    def _contract(self) -> type | None:
        module, _, name = REGISTRIES.get(self.folder, "").partition(":")
        return getattr(importlib.import_module(module), name) if module else None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._validate, serialization=core_schema.plain_serializer_function_ser_schema(to_table)
        )

    def _validate(self, value: Any, info: ValidationInfo) -> Recipe:
        if isinstance(value, Recipe):
            missing = violations(type(value), self._contract())
            if missing:
                raise PydanticCustomError(
                    "plugin",
                    "{text}",
                    {"text": f"{type(value).__name__} is no {self.noun}: {'; '.join(missing)}"},
                )
            return value
        if not isinstance(value, dict):
            raise PydanticCustomError(
                "plugin", "expected a table with the key `use`, got {got}", {"got": repr(value)}
            )
        table = dict(value)
        use = table.pop("use", None)
        if not isinstance(use, str):
            raise PydanticCustomError(
                "plugin",
                "name the {noun} with `use = ...`; known: {known}",
                {"noun": self.noun, "known": ", ".join(self.names())},
            )
        try:
            plugin = self.load(use, (info.context or {}).get(FOLDER))
        except (ValueError, ImportError) as error:
            raise PydanticCustomError("plugin", "{text}", {"text": str(error)}) from None
        try:
            return plugin.model_validate(table, context=info.context)
        except ValidationError as error:
            raise PydanticCustomError("plugin_fields", "in this plugin", {"error": error}) from None


def plugin_name(plugin: Recipe | type[Recipe]) -> str:
    """The name to write after `use`: the file name of our own plugins and of local ones, else the dotted module."""
    module = plugin.__module__
    path = local_plugins.path(module)
    if path is not None:
        return path.stem
    return module.rsplit(".", 1)[-1] if module.startswith("groundup.") else module


def is_plugin(recipe: Recipe) -> bool:
    """Whether the recipe's class is in a registry's folder or in a user's own module."""
    package = recipe.__module__.rsplit(".", 1)[0]
    return package in REGISTRIES or is_users_module(recipe.__module__)


def is_users_module(module: str) -> bool:
    """Whether a module is a user's own: a local plugin, or outside this package."""
    return local_plugins.path(module) is not None or not module.startswith("groundup.")


def plugin_source_digest(recipe: Recipe) -> str | None:
    """SHA-256 of the file of a user's own plugin; None for the classes of this package, which have versions."""
    if not is_users_module(recipe.__module__):
        return None
    file = getattr(sys.modules.get(recipe.__module__), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None


def local_sources(recipe: BaseModel) -> Iterator[Path]:
    """The files of all local plugins in a recipe."""
    path = local_plugins.path(type(recipe).__module__)
    if path is not None:
        yield path
    for name in type(recipe).model_fields:
        value = getattr(recipe, name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, BaseModel):
                yield from local_sources(item)


def to_table(plugin: Any) -> dict[str, Any]:
    """A plugin as the table to write in a blueprint, with every field."""
    fields: dict[str, Any] = plugin.model_dump()
    return {"use": plugin_name(plugin)} | fields


def _plugin_class(module: ModuleType) -> type[Recipe]:
    classes = [
        value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Recipe)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]
    if len(classes) != 1:
        names = ", ".join(item.__name__ for item in classes) or "none"
        path = local_plugins.path(module.__name__)
        raise ValueError(
            f"{path or module.__name__} must define exactly one public Recipe class, found: {names}"
        )
    return classes[0]
