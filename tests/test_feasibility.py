"""What would make a later stage fail stops a run before pretraining; `status` prints the same lines."""

import json
from pathlib import Path

import pytest

from groundup.cli import main
from tiny import OVERRIDES, corpus, groundup


class Workspace:
    """A folder of texts and the workspace of its runs."""

    def __init__(self, folder: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.path, self.capsys = folder, base / "workspace", capsys

    def command(self, name: str, *overrides: str, until: str = "") -> tuple[int, str]:
        """Exit code and messages of a command."""
        sets = [part for one in (*OVERRIDES, *overrides) for part in ("--set", one)]
        options = ["--data", str(self.folder), "--workspace", str(self.path), *sets]
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([name, *options, *(("--until", until) if until else ())])
        return int(stop.value.code or 0), self.capsys.readouterr().err

    def stages(self) -> set[str]:
        """Names of the stages that have an artifact or an unfinished one."""
        return {path.name.split("-")[0] for path in self.path.glob("artifacts/*")}


@pytest.fixture
def workspace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Workspace:
    return Workspace(corpus(tmp_path / "own"), tmp_path, capsys)


def test_a_contradiction_of_the_blueprint_stops_a_run_before_it_reads_anything(workspace: Workspace) -> None:
    contradiction = "align.align.max_new_tokens=256"
    code, messages = workspace.command("run", contradiction)
    assert code == 2
    assert "align.align.max_new_tokens = 256 leaves no room for a prompt" in messages
    assert workspace.stages() == set()
    code, messages = workspace.command("status", contradiction)
    assert code == 0
    assert "impossible: align.align.max_new_tokens = 256 leaves no room" in messages


def test_a_corpus_without_questions_stops_a_run_before_pretraining(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "words"
    folder.mkdir()
    for number in range(30):
        (folder / f"list_{number}.txt").write_text("\n".join(f"entry {number} {line}" for line in range(200)))
    workspace = Workspace(folder, tmp_path, capsys)
    lists = "curate.steps=[]"
    code, messages = workspace.command("run", *(lists,))
    assert code == 2, messages
    assert "align.finetune: there are 0 prompts to train on and 0 held out" in messages
    assert "pretrain" not in workspace.stages()
    assert "there are 0 prompts to train on" in workspace.command("status", lists)[1]


def test_a_plan_for_far_more_tokens_than_the_corpus_has_is_refused(workspace: Workspace) -> None:
    plan = "pretrain.tokens=140_000_000_000"
    code, messages = workspace.command("run", plan)
    assert code == 2
    assert "pretrain.tokens = 140,000,000,000: max_epochs = 8 passes over the corpus give" in messages
    assert "pretrain" not in workspace.stages()
    assert "impossible: pretrain.tokens = 140,000,000,000" in workspace.command("status", plan)[1]
    assert workspace.command("run", plan, until="tokenize")[0] == 0


def test_a_stage_after_the_last_one_of_a_run_does_not_stop_it(workspace: Workspace) -> None:
    code, messages = workspace.command("run", "align.align.rollout_batch_size=1", until="curate")
    assert code == 0
    assert "impossible: align.align.rollout_batch_size = 1 is less than minibatches = 3" in messages


def test_a_setting_without_effect_is_said_once(workspace: Workspace) -> None:
    code, messages = workspace.command("run", "pretrain.decay_fraction=0.3", until="tokenize")
    assert code == 0
    assert messages.count('pretrain.decay_fraction = 0.3 has no effect: schedule = "linear"') == 1


def test_plan_prints_the_same_lines_and_what_pretraining_reads(workspace: Workspace) -> None:
    assert workspace.command("run", until="tokenize")[0] == 0
    plan = "pretrain.tokens=140_000_000_000"
    assert "impossible: pretrain.tokens = 140,000,000,000" in workspace.command("plan", plan)[1]
    sets = [part for one in OVERRIDES for part in ("--set", one)]
    groundup("plan", "--data", str(workspace.folder), "--workspace", str(workspace.path), *sets, "--json")
    values = json.loads(workspace.capsys.readouterr().out)
    assert values["training tokens"] == values["steps"] * values["tokens per step"] <= 40_000
    assert values["epochs"] > 1 and values["share never read"] == 0
    assert values["FLOPs"] > 6 * values["training tokens"] * 32 * 320
