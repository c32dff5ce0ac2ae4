"""Every mistake in a blueprint is one message with file, key, value, what is allowed and what to write."""

import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from groundup.core.blueprint import apply_override, load, read_toml, to_toml
from groundup.core.errors import BlueprintError
from groundup.core.recipe import Recipe
from groundup.core.registry import Plugin, plugin_name

PART = '''
"""A part."""
from groundup.core.recipe import Recipe
from pydantic import Field

class Gopher(Recipe):
    """Keeps long documents."""
    min_words: int = Field(default=40, ge=0)
'''


@pytest.fixture
def slot(tmp_path: Path, monkeypatch) -> Plugin:
    folder = tmp_path / "toy_steps"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "gopher.py").write_text(PART)
    (folder / "empty.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Plugin("toy_steps")
    for name in [name for name in sys.modules if name.startswith("toy_steps")]:
        del sys.modules[name]


@pytest.fixture
def kind(slot: Plugin) -> type[Recipe]:
    class Plan(Recipe):
        """A plan."""

        depth: int = Field(default=4, gt=0)
        name: str = "x"
        steps: tuple[Annotated[Any, slot], ...] = ()

    return Plan


def refusal(kind: type[Recipe], table: dict[str, Any], *overrides: str) -> str:
    with pytest.raises(BlueprintError) as caught:
        load(kind, table, list(overrides), "mine.toml")
    return str(caught.value)


def test_a_misspelt_key_gets_the_nearest_spelling(kind: type[Recipe]) -> None:
    assert refusal(kind, {"dept": 3}) == "mine.toml: dept: unknown key. Did you mean `depth`?"


def test_a_value_out_of_range_says_value_and_range(kind: type[Recipe]) -> None:
    assert refusal(kind, {"depth": -3}) == "mine.toml: depth = -3: Input should be greater than 0"


def test_an_unknown_part_says_the_nearest_and_all(kind: type[Recipe]) -> None:
    said = refusal(kind, {"steps": [{"use": "gofer"}]})
    assert said.startswith("mine.toml: steps[0]: there is no toy_step `gofer`. Did you mean `gopher`?")


def test_a_missing_use_says_so(kind: type[Recipe]) -> None:
    assert "steps[0]: name the toy_step with `use = ...`" in refusal(kind, {"steps": [{"min_words": 1}]})


def test_a_mistake_inside_a_part_names_its_place(kind: type[Recipe]) -> None:
    table = {"steps": [{"use": "gopher"}, {"use": "gopher", "min_word": 3}]}
    assert refusal(kind, table) == "mine.toml: steps[1].min_word: unknown key. Did you mean `min_words`?"
    table = {"steps": [{"use": "gopher", "min_words": -1}]}
    assert refusal(kind, table).startswith("mine.toml: steps[0].min_words = -1: Input should be greater")


def test_a_file_that_is_no_part_is_refused(kind: type[Recipe]) -> None:
    assert "must define exactly one public Recipe class, found: none" in refusal(
        kind, {"steps": [{"use": "empty"}]}
    )


def test_all_mistakes_are_told_at_once(kind: type[Recipe]) -> None:
    assert len(refusal(kind, {"depth": 0, "name": 3}).splitlines()) == 2


def test_overrides_reach_sections_lists_by_index_name_and_use() -> None:
    table: dict[str, Any] = {"align": [{"name": "chat", "use": "sft"}], "steps": [{"use": "gopher"}]}
    for override in ("pretrain.depth=6", "align.chat.lr=1e-3", "steps.0.min_words=2", "name=plain word"):
        apply_override(table, override)
    assert table == {
        "align": [{"name": "chat", "use": "sft", "lr": 1e-3}],
        "steps": [{"use": "gopher", "min_words": 2}],
        "pretrain": {"depth": 6},
        "name": "plain word",
    }


@pytest.mark.parametrize(
    ("override", "said"),
    [("depth", "write section.key=value"), ("align.cat.lr=1", "no entry `cat`. Known: chat"),
     ("name.x=1", "`name` is a value, not a section")],
)  # fmt: skip
def test_a_wrong_override_says_how_to_write_it(override: str, said: str) -> None:
    with pytest.raises(BlueprintError, match=said):
        apply_override({"align": [{"name": "chat"}], "name": "x"}, override)


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("name = 'x'\ndepth = = 3\n")
    with pytest.raises(BlueprintError, match=r"b\.toml: not valid TOML: .*line 2"):
        read_toml(tmp_path / "b.toml")
    with pytest.raises(BlueprintError, match="no such file"):
        read_toml(tmp_path / "absent.toml")
    with pytest.raises(BlueprintError, match="--data"):
        read_toml(tmp_path)


def test_a_recipe_survives_toml_and_back(kind: type[Recipe], tmp_path: Path) -> None:
    plan = load(kind, {"depth": 7, "steps": [{"use": "gopher", "min_words": 2}]}, [], "x")
    (tmp_path / "out.toml").write_text(to_toml(plan))
    again = load(kind, read_toml(tmp_path / "out.toml"), [], "x")
    assert again.model_dump() == plan.model_dump()
    assert plugin_name(again.steps[0]) == "toy_steps.gopher"  # type: ignore[attr-defined]
