"""Tables on stdout, or JSON with --json: runs, artifacts, differences, the state of stages, plugins.

in:  artifacts, reports, registries
out: a table or a JSON document
"""

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from groundup.core.clean import UnusedItem
from groundup.core.errors import StoreError
from groundup.core.registry import REGISTRIES, Plugin
from groundup.core.standard_streams import print_json
from groundup.core.status import StageReport, flatten
from groundup.core.store import Artifact, Store
from groundup.evaluate.verdict_text import QUESTION_SETS, verdict
from groundup.plan.problem import Problem


def newest_run(store: Store) -> str:
    """The name of the run with the newest record."""
    names = store.run_names()
    if not names:
        raise StoreError(f"there is no run in {store.root}. `groundup run` makes one")
    return names[-1]


def pick(stages: dict[str, Artifact], label: str, run: str) -> Artifact:
    """The artifact of one stage of a run. Raises StoreError listing the stages."""
    if label not in stages:
        raise StoreError(f"run `{run}` has no stage `{label}`. It has: {', '.join(stages)}")
    return stages[label]


def pick_policy(stages: dict[str, Artifact], label: str | None, run: str) -> Artifact:
    """The last policy of a run, or that of a stage. Raises StoreError where there is none."""
    policies = {key: item for key, item in stages.items() if item.kind == "policy"}
    if not policies:
        raise StoreError(
            f"run `{run}` has no policy yet: it stopped after `{list(stages)[-1]}`. "
            "`groundup run` without --until builds the rest"
        )
    if label is None:
        return list(policies.values())[-1]
    if label not in policies:
        raise StoreError(f"stage `{label}` of run `{run}` is no policy. Its policies: {', '.join(policies)}")
    return policies[label]


def print_run(name: str, stages: dict[str, Artifact], as_json: bool) -> None:
    """Every stage of a run with its headline metrics."""
    manifests = {label: item.manifest() for label, item in stages.items()}
    if as_json:
        print_json({"name": name, "stages": manifests})
        return
    table = _table(f"run {name}", "stage", "artifact", "seconds", "metrics")
    for label, manifest in manifests.items():
        metrics = manifest["metrics"]
        headline = ", ".join(f"{key} {_value(metrics.get(key))}" for key in manifest.get("headline", ()))
        table.add_row(label, stages[label].path.name, f"{manifest['seconds']:.1f}", headline)
    _out().print(table)
    for manifest in manifests.values():
        if manifest["kind"] == "scores":
            _print_verdicts(manifest["metrics"])


def print_stage(artifact: Artifact, as_json: bool) -> None:
    """One artifact: metrics, recipe, inputs, files; from an examples.json also the loss masks."""
    manifest = artifact.manifest()
    if as_json:
        print_json(manifest)
        return
    out = _out()
    table = _table(str(artifact.path), "key", "value")
    for section in ("metrics", "recipe", "inputs"):
        for key, value in flatten(manifest[section]):
            table.add_row(Text(f"{section}.{key}"), Text(_value(value)))
    for file, entry in manifest["files"].items():
        table.add_row(Text(f"files.{file}"), Text(f"{entry['bytes']:,} bytes"))
    out.print(table)
    examples = artifact.path / "examples.json"
    if examples.exists():
        _print_masks(out, json.loads(examples.read_text(encoding="utf-8")))


def _print_verdicts(metrics: dict[str, Any]) -> None:
    """The scores of the answers, each against the best rule without a model."""
    for questions, title in QUESTION_SETS.items():
        for name, score in metrics.get(questions, {}).get("scores", {}).items():
            _out().print(Text(f"{title}, {verdict(name, score)}"), soft_wrap=True)


def print_status(reports: list[StageReport], problems: list[Problem], as_json: bool) -> None:
    """The state of every stage and the fields that differ; problems as messages."""
    for problem in problems:
        print(problem.line(), file=sys.stderr)
    names = [report.artifact.path.name if report.artifact else None for report in reports]
    if as_json:
        print_json([{"stage": report.label, "artifact": name, "state": report.state, "why": report.why}
               for report, name in zip(reports, names, strict=True)])  # fmt: skip
        return
    table = _table(None, "stage", "state", "artifact", "why")
    for report, name in zip(reports, names, strict=True):
        table.add_row(report.label, report.state, name or "not known yet", Text(report.why))
    _out().print(table)


def print_unused(items: list[UnusedItem], root: Path, deleted: bool, as_json: bool) -> None:
    """The unused files of a workspace with their sizes."""
    if as_json:
        print_json([{"path": str(item.path.relative_to(root)), "kind": item.kind, "bytes": item.bytes}
               for item in items])  # fmt: skip
        return
    table = _table(None, "path", "kind", "bytes")
    for item in items:
        table.add_row(Text(str(item.path.relative_to(root))), item.kind, f"{item.bytes:,}")
    if items:
        _out().print(table)
    total = f"{len(items)} unused, {sum(item.bytes for item in items):,} bytes"
    hint = "deleted" if deleted else "nothing was deleted: `groundup clean --yes` deletes them"
    print(f"{total}: {hint}" if items else "nothing is unused", file=sys.stderr)


def print_difference(a: dict[str, Artifact], b: dict[str, Artifact], as_json: bool) -> None:
    """Recipe fields and metrics in which two runs differ."""
    items = differences(a, b)
    if as_json:
        print_json(items)
        return
    if not items:
        print("no difference in any recipe or metric")
        return
    table = _table(None, "stage", "key", "a", "b")
    for item in items:
        table.add_row(*(Text(_value(item[key])) for key in ("stage", "key", "a", "b")))
    _out().print(table)


def differences(a: dict[str, Artifact], b: dict[str, Artifact]) -> list[dict[str, Any]]:
    """One entry per differing field: stage, key, both values (None where absent)."""
    items = []
    for label in [*a, *(label for label in b if label not in a)]:
        one, two = (_fields(side.get(label)) for side in (a, b))
        for key in sorted(one.keys() | two.keys()):
            if one.get(key) != two.get(key):
                items.append({"stage": label, "key": key, "a": one.get(key), "b": two.get(key)})
    return items


def print_plugins(as_json: bool) -> None:
    """Every registry with its plugins: fields, defaults and the first line of the docstring."""
    registries = {folder.removeprefix("groundup."): _plugins(Plugin(folder)) for folder in REGISTRIES}
    if as_json:
        print_json(registries)
        return
    out = _out()
    for registry, plugins in registries.items():
        out.print(Text(f"\n{registry}", style="bold"))
        table = Table.grid(padding=(0, 2))
        for name, plugin in plugins.items():
            fields = ", ".join(f"{key} = {value!r}" for key, value in plugin["fields"].items())
            table.add_row(
                Text(name, no_wrap=True), Text.assemble(plugin["about"], "\n", (fields, "bright_black"))
            )
        out.print(table)


def _plugins(registry: Plugin) -> dict[str, Any]:
    plugins = {}
    for name in registry.names():
        recipe = registry.load(name)
        defaults = {
            key: field.get_default(call_default_factory=True) for key, field in recipe.model_fields.items()
        }
        fields = {
            key: value.model_dump() if hasattr(value, "model_dump") else value
            for key, value in defaults.items()
        }
        plugins[name] = {"about": (recipe.__doc__ or "").strip().splitlines()[0], "fields": fields}
    return plugins


def _fields(artifact: Artifact | None) -> dict[str, Any]:
    if artifact is None:
        return {}
    manifest = artifact.manifest()
    sections = (("recipe", manifest["recipe"]), ("metrics", manifest["metrics"]))
    return {f"{name}.{key}": value for name, section in sections for key, value in flatten(section)}


def _print_masks(out: Console, examples: list[list[Any]]) -> None:
    out.print(
        "\nTraining examples with their loss mask: green tokens are in the loss, grey ones are context."
    )
    for spans in examples[:3]:
        text = Text()
        for span, in_loss in spans:
            text.append(span, style="green" if in_loss else "bright_black")
        out.print(text, "")


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _table(title: str | None, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _out() -> Console:
    return Console(highlight=False)
