"""Kept plans: the stages of a blueprint that was validated before, so that `status` need not import torch again.

in:  a blueprint as a table, its overrides
out: its planned stages from `workspace/plans/`, as long as neither the blueprint nor the package changed

Importing every stage takes several seconds; a kept plan is read in milliseconds. Blueprints with a user's own plugins
or an external start checkpoint are not kept: their recipes depend on other files.
"""

import contextlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundup.core.atomic_io import write_json
from groundup.core.fingerprint import digest
from groundup.core.recipe import Recipe
from groundup.core.registry import is_users_module
from groundup.core.status import PlannedStage
from groundup.core.store import Store

PACKAGE = Path(__file__).resolve().parents[1]


def plan_key(table: dict[str, Any], overrides: list[str]) -> str:
    """Digest of a blueprint with its overrides and of the state of the package's source files."""
    sources = [
        (str(path.relative_to(PACKAGE)), (status := path.stat()).st_size, status.st_mtime_ns)
        for path in sorted(PACKAGE.rglob("*.py"))
    ]
    return digest([json.dumps(table, sort_keys=True, default=str), overrides, sys.version, sources])


@dataclass(frozen=True)
class KeptPlan:
    """A validated blueprint's name, planned stages, and digest."""

    name: str
    stages: list[PlannedStage]
    digest: str


def load_plan(store: Store, key: str) -> KeptPlan | None:
    """The plan of a blueprint, or None where it isn't kept."""
    try:
        kept = json.loads(_path(store, key).read_text(encoding="utf-8"))
        return KeptPlan(
            str(kept["name"]), [PlannedStage(**stage) for stage in kept["stages"]], str(kept["digest"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_plan(store: Store, key: str, blueprint: Recipe, plan: KeptPlan) -> None:
    """Write the plan of a blueprint that depends on no file but its own."""
    if not any(map(is_users_module, _modules(blueprint))):
        with contextlib.suppress(OSError):
            write_json(_path(store, key), asdict(plan))


def _path(store: Store, key: str) -> Path:
    return store.root / "plans" / f"{key[:16]}.json"


def _modules(value: Any) -> set[str]:
    """The modules that define the recipes in `value`."""
    if isinstance(value, Recipe):
        return {type(value).__module__}.union(
            *(_modules(getattr(value, name)) for name in type(value).model_fields)
        )
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return set[str]().union(*(_modules(item) for item in items))
