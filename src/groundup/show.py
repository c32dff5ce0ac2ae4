"""Views for people and programs: what a run holds, what differs, what parts there are.

in:  artifacts, reports, slots
out: tables on stdout, or JSON with --json
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
from groundup.core.status import StageReport, flatten
from groundup.core.store import Artifact, Store

HEADLINES = {
    "ingest": ("documents", "bytes_read"),
    "curate": ("documents_kept", "documents_dropped", "bytes_kept"),
    "tokenizer": ("vocab_size", "bytes_per_token"),
    "tokenize": ("tokens", "train_rows", "validation_rows"),
    "pretrain": ("parameters", "tokens_per_second", "flops_utilization", "val_bpb"),
    "sft": ("val_loss_before", "val_loss"),
    "reward": ("accuracy",),
    "ppo": ("reward_before", "reward_after", "kl", "chrf_before", "chrf_after"),
    "evaluate": ("base_bpb", "chat_bpb", "chat_chrf"),
    "book": ("pages",),
}
"""The figures worth a line, by stage."""


def newest_run(store: Store) -> str:
    """The run that finished last."""
    runs = sorted(store.runs.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    if not runs:
        raise StoreError(f"there is no complete run in {store.root}. `groundup run` makes one")
    return runs[-1].stem


def pick(stages: dict[str, Artifact], label: str, run: str) -> Artifact:
    """One stage of a run."""
    if label not in stages:
        raise StoreError(f"run `{run}` has no stage `{label}`. It has: {', '.join(stages)}")
    return stages[label]


def print_run(name: str, stages: dict[str, Artifact], as_json: bool) -> None:
    """Every stage of a run with its main figures."""
    manifests = {label: item.manifest() for label, item in stages.items()}
    if as_json:
        _json({"name": name, "stages": manifests})
        return
    table = _table(f"run {name}", "stage", "artifact", "seconds", "figures")
    for label, said in manifests.items():
        names = HEADLINES.get(said["stage"], ())
        figures = ", ".join(f"{key} {_figure(said['metrics'].get(key))}" for key in names)
        table.add_row(label, stages[label].path.name, f"{said['seconds']:.1f}", figures)
    _out().print(table)


def print_stage(artifact: Artifact, as_json: bool) -> None:
    """One artifact: figures, recipe, inputs, files; for sft also what the loss sees."""
    said = artifact.manifest()
    if as_json:
        _json(said)
        return
    out = _out()
    table = _table(str(artifact.path), "key", "value")
    for section in ("metrics", "recipe", "inputs"):
        for key, value in flatten(said[section]):
            table.add_row(Text(f"{section}.{key}"), Text(_figure(value)))
    for file, facts in said["files"].items():
        table.add_row(Text(f"files.{file}"), Text(f"{facts['bytes']:,} bytes"))
    out.print(table)
    examples = artifact.path / "examples.json"
    if examples.exists():
        _print_masks(out, json.loads(examples.read_text(encoding="utf-8")))


def print_status(reports: list[StageReport], as_json: bool) -> None:
    """The state of every stage, and the fields that differ."""
    names = [report.artifact.path.name if report.artifact else None for report in reports]
    if as_json:
        _json([{"stage": report.label, "artifact": name, "state": report.state, "why": report.why}
               for report, name in zip(reports, names, strict=True)])  # fmt: skip
        return
    table = _table(None, "stage", "state", "artifact", "why")
    for report, name in zip(reports, names, strict=True):
        table.add_row(report.label, report.state, name or "not known yet", Text(report.why))
    _out().print(table)


def print_unused(items: list[UnusedItem], root: Path, deleted: bool, as_json: bool) -> None:
    """The unused files of a workspace with their sizes."""
    if as_json:
        _json([{"path": str(item.path.relative_to(root)), "kind": item.kind, "bytes": item.bytes}
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
    """Fields and figures in which two runs differ."""
    found = differences(a, b)
    if as_json:
        _json(found)
        return
    if not found:
        print("no difference in any recipe or figure")
        return
    table = _table(None, "stage", "key", "a", "b")
    for item in found:
        table.add_row(*(Text(_figure(item[key])) for key in ("stage", "key", "a", "b")))
    _out().print(table)


def differences(a: dict[str, Artifact], b: dict[str, Artifact]) -> list[dict[str, Any]]:
    """One entry per differing field: stage, key, both values (None where absent)."""
    found = []
    for label in [*a, *(label for label in b if label not in a)]:
        one, two = (_facts(side.get(label)) for side in (a, b))
        for key in sorted(one.keys() | two.keys()):
            if one.get(key) != two.get(key):
                found.append({"stage": label, "key": key, "a": one.get(key), "b": two.get(key)})
    return found


def print_parts(as_json: bool) -> None:
    """Every slot and part with fields, defaults and first docstring line."""
    slots = {folder.removeprefix("groundup."): _parts(Plugin(folder)) for folder in REGISTRIES}
    if as_json:
        _json(slots)
        return
    out = _out()
    for slot, parts in slots.items():
        out.print(Text(f"\n{slot}", style="bold"))
        table = Table.grid(padding=(0, 2))
        for name, part in parts.items():
            fields = ", ".join(f"{key} = {value!r}" for key, value in part["fields"].items())
            table.add_row(
                Text(name, no_wrap=True), Text.assemble(part["about"], "\n", (fields, "bright_black"))
            )
        out.print(table)


def _parts(slot: Plugin) -> dict[str, Any]:
    found = {}
    for name in slot.names():
        kind = slot.load(name)
        fields = {
            key: field.get_default(call_default_factory=True) for key, field in kind.model_fields.items()
        }
        plain = {
            key: value.model_dump() if hasattr(value, "model_dump") else value
            for key, value in fields.items()
        }
        found[name] = {"about": (kind.__doc__ or "").strip().splitlines()[0], "fields": plain}
    return found


def _facts(artifact: Artifact | None) -> dict[str, Any]:
    if artifact is None:
        return {}
    said = artifact.manifest()
    sections = (("recipe", said["recipe"]), ("metrics", said["metrics"]))
    return {f"{name}.{key}": value for name, section in sections for key, value in flatten(section)}


def _print_masks(out: Console, examples: list[list[Any]]) -> None:
    out.print("\nWhat the loss sees: green is learnt, grey is only read.")
    for pieces in examples[:3]:
        text = Text()
        for piece, learnt in pieces:
            text.append(piece, style="green" if learnt else "bright_black")
        out.print(text, "")


def _figure(value: Any) -> str:
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


def _json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str))
