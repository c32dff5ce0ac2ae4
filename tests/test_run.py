"""The closing word of a run."""

import sys

import pytest

from groundup import run


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
