"""What can't be read for lack of permission or descriptors is an error of the machine, never a damaged artifact."""

import errno
import os
from pathlib import Path

import pytest

from groundup.core.errors import StoreError
from groundup.core.store import MANIFEST, Store, read_manifest, verify

ARTIFACT = '{"fingerprint": "0", "kind": "corpus", "files": {}}'


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO])
def test_a_manifest_that_cannot_be_read_is_not_missing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / MANIFEST).write_text(ARTIFACT)
    assert verify(tmp_path) is None

    def refuse(path: Path, **_: object) -> str:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    for read in (read_manifest, verify):
        with pytest.raises(OSError, match=os.strerror(number)):
            read(tmp_path)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}"])
def test_a_manifest_that_is_missing_or_damaged_is_none(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / MANIFEST).write_text(content)
    assert read_manifest(tmp_path) is None


def test_a_run_record_that_cannot_be_read_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    assert store.previous_manifests("model") == {}, "the first run has no record"
    store.record_run("model", {}, {})
    assert store.run("model") == {}

    def refuse(path: Path, **_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refuse)
        with pytest.raises(PermissionError):
            store.run("model")
    (tmp_path / "runs" / "model.json").write_text("{")
    with pytest.raises(StoreError, match="not a readable run record"):
        store.run("model")


def test_runs_in_a_folder_that_cannot_be_listed_are_not_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    assert store.run_names() == []
    store.record_run("model", {}, {})

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        store.run_names()
