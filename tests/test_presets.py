"""Presets, and the user's own files in the place of their sources."""

from pathlib import Path

import pytest

from groundup import presets
from groundup.core.blueprint import commented_toml, load
from groundup.core.errors import BlueprintError
from groundup.pipeline import Blueprint


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_preset_is_a_valid_blueprint_of_its_name(name: str) -> None:
    assert load(Blueprint, presets.table(name), [], name).name == name


@pytest.mark.parametrize(
    ("folder", "name"),
    [("novels", "novels"), ("My texts", "My-texts"), ("Bücher", "B-cher"), ("日本", "own"), ("a.b.txt", "a")],
)
def test_a_run_on_own_files_is_called_after_them(folder: str, name: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    table = presets.table("stdlib")
    presets.use_data(table, [str(tmp_path / folder)], rename=True)
    plan = load(Blueprint, table, [], "test")
    assert plan.name == name
    assert [type(source).__name__ for source in plan.ingest.sources] == ["Files"]
    assert plan.pretrain.init == "standard"


def test_the_default_has_an_induction_circuit_and_own_files_in_an_own_blueprint_keep_their_init(
    tmp_path: Path,
) -> None:
    assert load(Blueprint, presets.table("stdlib"), [], "test").pretrain.init == "induction"
    table = {"pretrain": {"init": "induction"}}
    presets.use_data(table, [str(tmp_path)], rename=False)
    assert table["pretrain"] == {"init": "induction"}


def test_data_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BlueprintError, match="no such file or folder"):
        presets.use_data({}, [str(tmp_path / "nothing")], rename=True)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_the_printed_blueprint_is_the_presets(name: str) -> None:
    """When this fails: `rm blueprints/NAME.toml; groundup init blueprints/NAME.toml --preset NAME`."""
    printed = Path(__file__).resolve().parents[1] / "blueprints" / f"{name}.toml"
    assert printed.read_text() == commented_toml(load(Blueprint, presets.table(name), [], name))


@pytest.mark.parametrize(
    ("name", "private"),
    [
        ("a.mbox", True),
        ("deep/b.eml", True),
        ("WhatsApp chat.txt", True),
        ("irc/log-1.mbox.gz", True),
        ("novel.txt", False),
        ("chatty.md", False),
    ],
)
def test_mail_and_chat_logs_get_the_privacy_step(name: str, private: bool, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("x")
    table = presets.table("stdlib")
    default = [type(step).__name__ for step in load(Blueprint, table, [], "test").curate.steps]
    presets.use_data(table, [str(tmp_path)], rename=False)
    steps = [type(step).__name__ for step in load(Blueprint, table, [], "test").curate.steps]
    assert steps == default + ["Privacy"] * private
