"""Registries: plugins are found by name, checked against their protocol, and identified by version or source."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from groundup.core.blueprint import load
from groundup.core.errors import BlueprintError
from groundup.core.fingerprint import canonical_json
from groundup.core.recipe import Recipe
from groundup.core.registry import REGISTRIES, Plugin, local_sources, plugin_name, plugin_source_digest
from groundup.pipeline import Blueprint

OWN_TASK = '''
"""A task."""
from typing import ClassVar
from groundup.core.recipe import Recipe
from groundup.evaluate.tasks import Example

class Own(Recipe):
    """Asks one question."""

    metrics: ClassVar[tuple[str, ...]] = ("chrf",)
    count: int = 1

    def examples(self, document):
        return [Example(document.id, "own", document.id, "x", "What is x?", "x is y.")]

    def grade(self, example, answer):
        return {"chrf": 100.0 * (answer == example.answer)}
'''
EMPTY = '''
from groundup.core.recipe import Recipe

class Empty(Recipe):
    """Satisfies no protocol."""
'''
PLACES: dict[str, Any] = {
    "groundup.text.ingest.sources": ("ingest", "sources"),
    "groundup.text.curate.steps": ("curate", "steps"),
    "groundup.model.architectures": ("pretrain", "architecture"),
    "groundup.parallel.engines": ("runtime", "engine"),
    "groundup.train.optimizers": ("pretrain", "optimizer"),
    "groundup.evaluate.tasks": ("tasks",),
    "groundup.align.data.datasets": ("data",),
    "groundup.align.methods": ("align",),
    "groundup.evaluate.verifiers": ("align", "verifier"),
}
LISTS = ("sources", "steps", "tasks", "data", "align")
MISSING = {
    "groundup.text.ingest.sources": "has no method `files()`",
    "groundup.text.curate.steps": "has no method `apply(batch)`",
    "groundup.model.architectures": "is not derived from groundup.model.architectures.Architecture",
    "groundup.parallel.engines": "has no method `prepare(",
    "groundup.train.optimizers": "is not derived from groundup.train.optimizers.Optimizer",
    "groundup.evaluate.tasks": "has no method `grade(example, answer)`",
    "groundup.align.data.datasets": "is not derived from groundup.align.data.dataset.Dataset",
    "groundup.align.methods": "is not derived from groundup.align.method.Method",
    "groundup.evaluate.verifiers": "has no method `score(prompt, response, reference)`",
}


def blueprint(place: tuple[str, ...], use: str) -> dict[str, Any]:
    """A valid blueprint with one plugin at `place`."""
    table: dict[str, Any] = {"ingest": {"sources": [{"use": "stdlib"}]}}
    if place[0] == "align":
        table["tasks"] = [{"use": "passages"}]
    if place == ("align", "verifier"):
        return table | {"align": [{"use": "grpo", "verifier": {"use": use}}]}
    here = table
    for key in place[:-1]:
        here = here.setdefault(key, {})
    here[place[-1]] = [{"use": use}] if place[-1] in LISTS else {"use": use}
    return table


def refusal(table: dict[str, Any], folder: Path) -> str:
    with pytest.raises(BlueprintError) as refused:
        load(Blueprint, table, [], "mine.toml", folder)
    return str(refused.value)


@pytest.mark.parametrize("registry", REGISTRIES)
def test_a_wrong_plugin_is_refused_at_load_in_every_registry(registry: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(EMPTY)
    place = PLACES[registry]
    where = ".".join(place) + ("[0]" if place[-1] in LISTS else "")
    where += ".method" if registry.endswith("methods") else ""
    where = where.replace("align.verifier", "align[0].method.verifier")
    message = refusal(blueprint(place, "wrong"), tmp_path)
    noun = registry.rsplit(".", 1)[-1].removesuffix("s")
    assert message.startswith(f"mine.toml: {where}: `wrong` is no {noun}: its class Empty ")
    assert MISSING[registry] in message


@pytest.mark.parametrize("registry", REGISTRIES)
def test_a_plugin_of_another_registry_is_refused(registry: str, tmp_path: Path) -> None:
    other = "groundup.evaluate.tasks.passages"
    if registry == "groundup.evaluate.tasks":
        other = "groundup.train.optimizers.muon"
    assert MISSING[registry] in refusal(blueprint(PLACES[registry], other), tmp_path)


@pytest.mark.parametrize("registry", REGISTRIES)
def test_every_plugin_satisfies_its_registry(registry: str) -> None:
    for name in Plugin(registry).names():
        assert plugin_name(Plugin(registry).load(name)) == name


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("def grade(", "def mark(", "`own` is no task: its class Own has no method `grade(example, answer)`"),
        ("example, answer):", "answer):", "has a method `grade` that can't be called as `grade(example, answer)`"),
        ("def grade(", "grade: int = 3\n    def _grade(", "has no method `grade(example, answer)`"),
        ('    metrics: ClassVar[tuple[str, ...]] = ("chrf",)', "", "has no `metrics`"),
        ('("chrf",)', '("exact",)', "task `own` does not give the metric `chrf`, which evaluation needs"),
        ("class Own", "class _Own", "own.py must define exactly one public Recipe class, found: none"),
        ('"""A task."""', "import nothing_such", "can't be imported: ModuleNotFoundError: No module named"),
        ('"""A task."""', "def (", "can't be imported: SyntaxError"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_task_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in OWN_TASK
    (tmp_path / "own.py").write_text(OWN_TASK.replace(old, new))
    assert message in refusal(blueprint(("tasks",), "own"), tmp_path)


def test_a_method_that_does_not_prepare_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lazy.py").write_text(
        "from groundup.align.methods import Method\n\nclass Lazy(Method):\n    '''Trains nothing.'''\n"
    )
    assert "its class Lazy does not implement `prepare(" in refusal(blueprint(("align",), "lazy"), tmp_path)


def own(folder: Path, source: str = OWN_TASK) -> Recipe:
    (folder / "own.py").write_text(source)
    plan = load(Blueprint, blueprint(("tasks",), "own"), [], "mine.toml", folder)
    assert [path.name for path in local_sources(plan)] == ["own.py"]
    return plan.tasks[0]  # type: ignore[return-value]


def test_a_local_module_works_like_a_dotted_one(tmp_path: Path) -> None:
    task = own(tmp_path)
    assert plugin_name(task) == "own"
    assert "there is no task `own`" in refusal(blueprint(("tasks",), "own"), tmp_path / "elsewhere")


def test_two_local_modules_of_one_name_do_not_collide(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = own(tmp_path / "a"), own(tmp_path / "b", OWN_TASK.replace("count: int = 1", "count: int = 2"))
    assert (one.model_dump(), two.model_dump()) == ({"count": 1}, {"count": 2})
    assert type(pickle.loads(pickle.dumps(one))) is type(one) is not type(two)


def test_an_edited_plugin_has_another_identity_and_a_moved_one_the_same(tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    before = canonical_json(own(tmp_path))
    assert canonical_json(own(tmp_path / "moved")) == before
    edited = own(tmp_path, OWN_TASK.replace("x is y.", "x is z."))
    assert canonical_json(edited) != before
    assert edited.examples(Doc())[0].answer == "x is z."  # type: ignore[attr-defined]
    assert plugin_source_digest(Plugin("groundup.evaluate.tasks").load("passages")()) is None


class Doc:
    id = "d"


def test_other_processes_can_read_a_pickled_local_plugin(tmp_path: Path) -> None:
    (tmp_path / "task.pickle").write_bytes(pickle.dumps(own(tmp_path)))
    script = f"import pickle; print(pickle.load(open({str(tmp_path / 'task.pickle')!r}, 'rb')).count)"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert printed.stdout == "1\n"
