"""`groundup clean`: everything unused is listed and deleted, everything in use stays."""

from pathlib import Path

import pytest

from groundup.core.clean import delete_unused, find_unused
from groundup.core.errors import StoreError
from groundup.core.stage import Artifact
from groundup.core.store import Store


def artifact(store: Store, number: int) -> Artifact:
    """A folder with an artifact's name and ten bytes in it."""
    item = store.artifact("make", f"{number:012d}" + "0" * 52, "scores")
    item.path.mkdir(parents=True)
    (item.path / "file").write_text("x" * 10)
    return item


@pytest.fixture
def workspace(store: Store) -> tuple[Store, Artifact]:
    """A recorded artifact, and one of everything that nothing refers to."""
    used, unused = artifact(store, 1), artifact(store, 2)
    store.record_run("r", {"make": used}, {})
    for suffix in (".part", ".removed"):
        folder = unused.path.with_name(unused.path.name + suffix)
        folder.mkdir()
        (folder / "half").write_text("x" * 100)
    for item in (used, unused):
        item.path.with_name(item.path.name + ".lock").touch()
        (store.root / "trackers" / "tensorboard" / item.path.name).mkdir(parents=True)
    return store, used


def names(store: Store) -> set[str]:
    return {path.name for path in store.artifacts.iterdir()}


def test_what_no_run_refers_to_is_listed_with_sizes_and_nothing_is_deleted(
    workspace: tuple[Store, Artifact],
) -> None:
    store, _ = workspace
    before = sorted(store.root.rglob("*"))
    found = {(item.path.name, item.kind): item.bytes for item in find_unused(store)}
    assert found == {
        ("make-000000000001.lock", "free lock"): 0,
        ("make-000000000002", "artifact"): 10,
        ("make-000000000002.lock", "free lock"): 0,
        ("make-000000000002.part", "interrupted build"): 100,
        ("make-000000000002.removed", "interrupted deletion"): 100,
        ("make-000000000002", "tracker files"): 0,
    }
    assert sorted(store.root.rglob("*")) == before


def test_only_the_unused_is_deleted(workspace: tuple[Store, Artifact]) -> None:
    store, used = workspace
    delete_unused(store)
    assert names(store) == {used.path.name}
    assert [path.name for path in (store.root / "trackers" / "tensorboard").iterdir()] == [used.path.name]
    assert (store.runs / "r" / "01-make" / "file").read_text() == "x" * 10
    assert find_unused(store) == []


def test_foreign_files_are_left_alone(workspace: tuple[Store, Artifact]) -> None:
    store, _ = workspace
    (store.artifacts / "notes.txt").write_text("mine")
    (store.artifacts / "my-model").mkdir()
    delete_unused(store)
    assert {"notes.txt", "my-model"} <= names(store)


def test_nothing_is_deleted_while_an_artifact_is_built(workspace: tuple[Store, Artifact]) -> None:
    store, _ = workspace
    building = artifact(store, 3)
    before = names(store)
    with store.lock(building):
        assert building.path.name not in {item.path.name for item in find_unused(store)}
        with pytest.raises(StoreError, match=rf"is building {building.path.name}"):
            delete_unused(store)
    assert names(store) == before


def test_nothing_is_deleted_while_a_run_is_between_two_stages(workspace: tuple[Store, Artifact]) -> None:
    store, _ = workspace
    before = names(store)
    with store.in_use(), pytest.raises(StoreError, match="a run is in progress"):
        delete_unused(store)
    assert names(store) == before


def test_a_record_that_cannot_be_read_stops_everything(workspace: tuple[Store, Artifact]) -> None:
    store, _ = workspace
    (store.runs / "torn.json").write_text('{"stages": {')
    before = names(store)
    with pytest.raises(StoreError, match=r"torn\.json is not a readable run record"):
        delete_unused(store)
    assert names(store) == before


def test_a_link_in_place_of_an_artifact_is_not_followed(
    workspace: tuple[Store, Artifact], tmp_path: Path
) -> None:
    store, _ = workspace
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("precious")
    (store.artifacts / "make-00000000000a").symlink_to(tmp_path / "elsewhere")
    delete_unused(store)
    assert (tmp_path / "elsewhere" / "file").read_text() == "precious"
    assert not (store.artifacts / "make-00000000000a").is_symlink()
