"""`groundup status`: what the resolved blueprint, kept plans and rejected files change, and what they don't."""

import json
from pathlib import Path
from typing import Any

import pytest

from groundup import presets
from groundup.cli import main
from groundup.core.blueprint import load, read_toml
from groundup.core.kept_plan import load_plan, plan_key
from groundup.core.store import Store
from groundup.pipeline import Blueprint, planned_stages, resolved
from tiny import OVERRIDES, corpus, groundup

VARIATIONS: dict[str, tuple[str, ...]] = {
    "the default": (),
    "tiny": (*OVERRIDES, 'pretrain.init="standard"'),
    "deeper": ("pretrain.depth=7", "pretrain.architecture.d_model=0"),
    "adamw by the rules": (
        'pretrain.optimizer={use="adamw", weight_decay="auto"}',
        'align.finetune.optimizer={use="adamw", lr=0.0, weight_decay="auto"}',
    ),
    "muon in alignment": ('align.align.optimizer={use="muon"}',),
    "some rates of one's own": ("pretrain.optimizer.adam_lr=0.01", "pretrain.optimizer.weight_decay=0.1"),
    "warmup, stable, decay": ('pretrain.schedule="wsd"', "pretrain.tokens=0", "pretrain.batch_tokens=0"),
    "weighted sources": ('ingest.sources=[{use="stdlib", weight=2.0, max_epochs=3.0}]',),
    "awkward numbers": ("pretrain.optimizer.lr=0.1234567890123456789", "pretrain.tokens=1_000_003"),
}


def identities(plan: Blueprint) -> list[tuple[str, Any]]:
    return [(stage.label, stage.identity) for stage in planned_stages(plan)]


@pytest.mark.parametrize("variation", VARIATIONS)
def test_the_resolved_blueprint_has_the_identity_of_its_origin(variation: str, tmp_path: Path) -> None:
    table = presets.table("stdlib")
    origin = load(Blueprint, table, list(VARIATIONS[variation]), variation)
    written = tmp_path / "resolved.toml"
    written.write_text(resolved(origin), encoding="utf-8")
    copy = load(Blueprint, read_toml(written), [], "resolved")
    assert identities(copy) == identities(origin)
    assert resolved(copy) == resolved(origin)
    assert '"auto"' not in resolved(origin).replace('precision = "auto"', "")


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_so_has_every_preset(preset: str, tmp_path: Path) -> None:
    origin = load(Blueprint, presets.table(preset), [], preset)
    written = tmp_path / "resolved.toml"
    written.write_text(resolved(origin), encoding="utf-8")
    assert identities(load(Blueprint, read_toml(written), [], "resolved")) == identities(origin)


def test_a_rate_of_ones_own_is_another_identity() -> None:
    table = presets.table("stdlib")
    by_rule, own = (
        load(Blueprint, table, overrides, "test") for overrides in ([], ["pretrain.optimizer.lr=0.01"])
    )
    differing = [a[0] for a, b in zip(identities(by_rule), identities(own), strict=True) if a != b]
    assert differing == ["pretrain", "book"]


class World:
    """A corpus of text files, of which one is rejected, curated in a workspace."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = corpus(folder / "own", files=6), capsys
        self.rejected = self.folder / "rejected.txt"
        self.rejected.write_bytes(b"")
        self.workspace = folder / "workspace"
        self.options = ["--data", str(self.folder), "--workspace", str(self.workspace)]
        self.options += [
            word
            for item in ("curate.steps.length.min_chars=1", "tokenizer.vocab_size=320")
            for word in ("--set", item)
        ]

    def run(self) -> dict[str, str]:
        """State of each stage after a run up to the tokenizer: what was built."""
        groundup("run", *self.options, "--until", "tokenizer")
        lines = [line for line in self.capsys.readouterr().err.splitlines() if line.startswith("[")]
        return {line.split("] ")[1].split(":")[0]: line.split("] ")[1] for line in lines}

    def status(self, *arguments: str) -> dict[str, dict[str, Any]]:
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(["status", *self.options, "--json", *arguments])
        assert stop.value.code in (0, None)
        return {item["stage"]: item for item in json.loads(self.capsys.readouterr().out)}


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> World:
    return World(tmp_path, capsys)


def test_a_rejected_file_with_another_reason_rebuilds_nothing_after_ingest(world: World) -> None:
    assert world.run() == {"ingest": "ingest", "curate": "curate", "tokenizer": "tokenizer"}
    world.rejected.write_bytes(b"\x00\x01\x02\x03" * 64)
    assert world.run() == {
        "ingest": "ingest", "curate": "curate: up to date", "tokenizer": "tokenizer: up to date",
    }  # fmt: skip
    world.rejected.touch()  # other times, the same bytes
    assert world.run()["ingest"] == "ingest: up to date"


def test_a_kept_plan_answers_as_a_validated_blueprint_does(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run()
    first = world.status()
    monkeypatch.setattr("groundup.pipeline.planned_stages", lambda plan: pytest.fail("planned again"))
    assert world.status() == first
    assert first["curate"]["state"] == "up to date" and first["pretrain"]["why"] == "never built"


def test_a_plan_is_kept_for_one_state_of_blueprint_and_package(tmp_path: Path) -> None:
    table = presets.table("stdlib")
    assert plan_key(table, []) == plan_key(presets.table("stdlib"), [])
    assert plan_key(table, []) != plan_key(table, ["pretrain.depth=2"])
    assert plan_key(table, []) != plan_key(table | {"name": "other"}, [])
    assert load_plan(Store(tmp_path), plan_key(table, [])) is None


def test_a_blueprint_that_is_not_valid_is_refused_by_status(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["status", *world.options, "--set", "pretrain.deph=3"])
    assert stop.value.code == 2 and "Did you mean `depth`?" in capsys.readouterr().err
