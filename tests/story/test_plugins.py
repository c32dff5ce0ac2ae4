"""A method and a task of somebody else's package: built, chatted with, exported, shown and printed like our own."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from groundup.model.checkpoint import load_decoder
from tiny import corpus, groundup, read_json

METHOD = '''
"""DPO without a preference: the loss is zero, whatever the pairs."""

from typing import Any, ClassVar

from groundup.align.methods import Method, MethodContext
from groundup.align.session import SessionSetup
from groundup.train.init_from import save_checkpoint


class NoopDpo(Method):
    """Trains the start policy on a loss that is zero."""

    headline: ClassVar[tuple[str, ...]] = ("margin",)
    steps: int = 2

    def prepare(self, context: MethodContext) -> "Session":
        return Session(self, context)


class Session:
    def __init__(self, recipe: NoopDpo, context: MethodContext) -> None:
        self.recipe, self.context = recipe, context
        self.setup = SessionSetup.create(recipe, context, 1)
        self.trained = self.setup.trained(self.setup.start_policy(), self.loss)

    def train_spec(self):
        return self.setup.train_spec(self.trained.engine, lambda step: [step], self.recipe.steps)

    def loss(self, model: Any, batch: int):
        return 0.0 * sum(weight.float().sum() for weight in model.parameters()), {}

    def finish(self):
        setup = self.setup
        folder = self.context.stage.path
        save_checkpoint(folder, self.trained.engine, setup.config, self.context.tokenizer, setup.parallel, chat=True)
        return {"margin": 0.125}
'''
TASK = '''
"""Asks for the first word of a document."""

from typing import ClassVar

from groundup.core.recipe import Recipe
from groundup.evaluate.tasks import Example


class FirstWord(Recipe):
    """Questions about the first word of a document."""

    metrics: ClassVar[tuple[str, ...]] = ("chrf", "right")

    def examples(self, document):
        word = document.text.split()[0]
        question = f"What is the first word of {document.path}?"
        return [Example(document.id, "first", document.id, document.path, question, word)]

    def grade(self, example, answer):
        right = float(answer.strip() == example.answer)
        return {"chrf": 100 * right, "right": right}
'''
BLUEPRINT = """
[[ingest.sources]]
use = "files"
paths = ["texts"]

[[curate.steps]]
use = "length"
min_chars = 1

[tokenizer]
vocab_size = 320

[tokenize]
seq_len = 256
validation_share = 0.2

[pretrain]
depth = 1
tokens = 8_000
architecture = { use = "qwen3", d_model = 32, n_heads = 2 }

[[tasks]]
use = "first_word"

[[align]]
name = "aligned"
use = "lab.noop_dpo"

[evaluate]
examples = 4
max_new_tokens = 8

[runtime]
compile = "off"
threads = 1
device = "cpu"
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with texts, a blueprint, a local task and an installed package with a method."""
    folder = tmp_path_factory.mktemp("somebody")
    corpus(folder / "texts", files=12)
    package = folder / "site" / "lab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "noop_dpo.py").write_text(METHOD)
    (folder / "first_word.py").write_text(TASK)
    (folder / "mine.toml").write_text(BLUEPRINT)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(package.parent))
        patch.setenv("GROUNDUP_WORKSPACE", str(folder / "workspace"))
        patch.chdir(folder)
        groundup("run", "mine.toml", "--quiet")
        yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "lab"]:
        del sys.modules[name]


def manifest(lab: Path, stage: str) -> dict[str, object]:
    record = read_json(lab / "workspace" / "runs" / "mine.json")
    manifest: dict[str, object] = read_json(
        lab / "workspace" / "artifacts" / record["stages"][stage] / "manifest.json"
    )
    return manifest


def test_its_policy_is_evaluated_with_its_task(lab: Path) -> None:
    assert manifest(lab, "aligned")["kind"] == "policy"
    scores = manifest(lab, "evaluate")["metrics"]
    assert isinstance(scores, dict) and {"chrf", "right"} <= scores["held_out"]["scores"].keys()


def test_it_chats(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    groundup("chat", "mine", "--prompt", "What is the first word?", "--max-tokens", "4")
    assert capsys.readouterr().out.endswith("\n")


def test_it_is_exported(lab: Path, tmp_path: Path) -> None:
    groundup("export", "mine", str(tmp_path / "model"))
    assert load_decoder(tmp_path / "model").config.d_model == 32


def test_it_is_shown(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    groundup("show", "mine", "aligned", "--json")
    assert json.loads(capsys.readouterr().out)["metrics"]["margin"] == 0.125
    groundup("show", "mine")
    assert "margin 0.125" in " ".join(capsys.readouterr().out.split())


def test_it_is_printed_in_the_book(lab: Path) -> None:
    book = next((lab / "workspace" / "artifacts").glob("book-*/book.html")).read_text()
    assert "lab.noop_dpo" in book and "0.125" in book


def test_it_is_up_to_date_until_its_source_is_edited(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def states() -> dict[str, str]:
        capsys.readouterr()
        groundup("status", "mine.toml", "--json")
        return {item["stage"]: item["state"] for item in json.loads(capsys.readouterr().out)}

    before = states()
    task = lab / "first_word.py"
    task.write_text(TASK.replace("the first word of {", "the very first word of {"))
    after = states()
    task.write_text(TASK)
    assert set(before.values()) == {"up to date"}
    assert after["pretrain"] == "up to date"
    assert after["data"] == "to build" and after["aligned"] != "up to date" != after["evaluate"]


def test_the_blueprint_kept_with_the_run_describes_the_same_run(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = lab / "workspace" / "runs" / "mine"
    assert (kept / "first_word.py").read_text() == TASK
    capsys.readouterr()
    groundup("status", str(kept / "blueprint.toml"), "--name", "mine", "--json")
    states = {item["stage"]: item["state"] for item in json.loads(capsys.readouterr().out)}
    assert states["aligned"] == states["evaluate"] == "up to date"
