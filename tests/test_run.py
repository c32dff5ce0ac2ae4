"""The first and the closing word of a run."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from groundup import run
from groundup.core.progress import Reporter


@pytest.mark.parametrize(
    ("called", "found", "said"),
    [
        (".venv/bin/groundup", None, ".venv/bin/groundup"),
        ("/usr/bin/groundup", "/usr/bin/groundup", "groundup"),
        ("src/groundup/cli.py", None, "groundup"),
    ],
)
def test_people_are_told_a_command_that_works_from_where_they_are(
    called: str, found: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    monkeypatch.setattr(run.shutil, "which", lambda _: found)
    assert run._command() == said


@pytest.mark.parametrize("writable", [[], ["."]])
def test_without_a_temporary_folder_the_workspace_has_one_and_it_is_said(
    writable: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", "")
    monkeypatch.delenv("TMPDIR")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(
        tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / name) for name in writable]
    )
    folder = tmp_path / "workspace" / "temporary"
    run.use_temporary_folder(folder, Reporter())
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(folder)
    assert folder.is_dir()
    assert f"temporary files go to {folder}" in capsys.readouterr().err
    run.use_temporary_folder(tmp_path / "another", Reporter())
    assert not (tmp_path / "another").exists()
