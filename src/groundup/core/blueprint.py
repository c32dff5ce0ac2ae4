"""TOML <-> a typed blueprint; every mistake names file, key, value, what is allowed and the nearest key.

in:  a TOML file or table, and overrides such as `pretrain.depth=12`
out: one frozen, validated Recipe, or a BlueprintError that lists every mistake at once
"""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, ValidationError

from groundup.core.errors import BlueprintError
from groundup.core.recipe import Recipe
from groundup.core.registry import FOLDER, is_plugin, plugin_name

R = TypeVar("R", bound=Recipe)


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a file. Raises BlueprintError with the line of a syntax error."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BlueprintError(f"{path}: there is no such file. `groundup init` writes one") from None
    except IsADirectoryError:
        raise BlueprintError(
            f"{path} is a folder. To train on the texts in it: groundup run --data {path}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BlueprintError(f"{path}: not valid TOML: {error}") from None


def load(
    kind: type[R], table: dict[str, Any], overrides: list[str], origin: str, folder: Path | None = None
) -> R:
    """`table` with `overrides` applied, validated as `kind`.

    origin: name of the table in messages. folder: where the modules of local plugins are.
    """
    for override in overrides:
        apply_override(table, override)
    try:
        return kind.model_validate(table, context={FOLDER: folder})
    except ValidationError as error:
        lines = explain(error)
        raise BlueprintError("\n".join(f"{origin}: {line}" for line in lines)) from None


def apply_override(table: dict[str, Any], override: str) -> None:
    """Set `section.key=value` in a table. An entry of a list is named by its index, `name` or `use`."""
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise BlueprintError(f"--set {override}: write section.key=value, e.g. --set pretrain.depth=6")
    here: Any = table
    for key in keys[:-1]:
        here = here.setdefault(key, {}) if isinstance(here, dict) else _entry(here, key, override)
    if isinstance(here, dict):
        here[keys[-1]] = _value(text)
    elif isinstance(here, list) and keys[-1].isdecimal() and int(keys[-1]) < len(here):
        here[int(keys[-1])] = _value(text)
    else:
        raise BlueprintError(f"--set {override}: `{'.'.join(keys[:-1])}` is a value, not a section")


def to_toml(recipe: Recipe, leave_out: frozenset[str] = frozenset()) -> str:
    """A recipe as TOML with every field; None is left out, since TOML has no null."""
    return tomli_w.dumps(_without_none(recipe.model_dump(mode="json", exclude=set(leave_out))))


def explain(error: ValidationError, at: tuple[Any, ...] = ()) -> list[str]:
    """One line of text for each mistake in a pydantic error."""
    lines = []
    for item in error.errors(include_url=False):
        where = (*at, *item["loc"])
        context = item.get("ctx") or {}
        if item["type"] == "plugin_fields":
            lines += explain(context["error"], where)
        elif item["type"] == "unknown_key":
            lines.append(f"{key_path((*where, context['key']))}: {item['msg']}")
        else:
            message = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            value = "" if isinstance(item["input"], dict | list) else f" = {item['input']!r}"
            lines.append(f"{key_path(where)}{value}: {message}")
    return lines


def key_path(where: tuple[Any, ...]) -> str:
    """The dotted path of a key: `curate.steps[0].min_words`."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "blueprint"


def _entry(here: Any, key: str, override: str) -> Any:
    if not isinstance(here, list):
        raise BlueprintError(f"--set {override}: nothing can be set below a value")
    if key.isdecimal() and int(key) < len(here):
        return here[int(key)]
    for item in here:
        if isinstance(item, dict) and key in (item.get("name"), item.get("use")):
            return item
    known = [str(item.get("name") or item.get("use")) for item in here if isinstance(item, dict)]
    raise BlueprintError(f"--set {override}: there is no entry `{key}`. Known: {', '.join(known)}")


def _value(text: str) -> Any:
    """A value parsed as TOML; a bare word is a string."""
    try:
        return tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_none(inner) for inner in value]
    return value


def commented_toml(recipe: Recipe) -> str:
    """A recipe as TOML with every key's description above it: a file to start from."""
    lines = [f"# {(type(recipe).__doc__ or '').strip().splitlines()[0]}", ""]
    _write_table(recipe, "", lines)
    return "\n".join(lines) + "\n"


def _write_table(recipe: BaseModel, at: str, lines: list[str]) -> None:
    """Write plain values first, then tables: the order that TOML needs."""
    tables = []
    for name, field in type(recipe).model_fields.items():
        value = getattr(recipe, name)
        if isinstance(value, BaseModel) or _is_tables(value):
            tables.append((name, value))
            continue
        if field.description:
            lines.append(f"# {field.description}")
        lines.append(_toml_line(name, recipe.model_dump(mode="json", include={name})[name]))
    for name, value in tables:
        here = f"{at}.{name}" if at else name
        for item in value if isinstance(value, tuple) else (value,):
            head = f"[[{here}]]" if isinstance(value, tuple) else f"[{here}]"
            lines += ["", f"# {_first_line(item)}", head]
            lines += _use_line(item)
            _write_table(item, here, lines)


def _toml_line(name: str, value: Any) -> str:
    """`name = value` on one line, a table inline: as a block it would start a section."""
    if value is None:
        return f"# {name} ="
    if isinstance(value, dict):
        return f"{name} = {{{', '.join(_toml_line(key, inner) for key, inner in value.items())}}}"
    return tomli_w.dumps({name: _without_none(value)}).rstrip()


def _is_tables(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(item, BaseModel) for item in value)


def _use_line(item: BaseModel) -> list[str]:
    """The `use` line of a plugin; empty for other recipes."""
    return [f'use = "{plugin_name(item)}"'] if isinstance(item, Recipe) and is_plugin(item) else []


def _first_line(item: BaseModel) -> str:
    return (type(item).__doc__ or "").strip().splitlines()[0]
