"""How commands end: status 2 and one message for every error of the system, whatever raised it."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import groundup.show
from groundup.cli import main


def stderr_of(*argv: str, stdout: str = "/dev/null") -> tuple[int, str]:
    """Status and stderr of a command whose stdout is the file `stdout`."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with Path(stdout).open("wb") as file:
        command = [sys.executable, "-m", "groundup.cli", *argv]
        ran = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True, env=environment)
    return ran.returncode, ran.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_one_message() -> None:
    status, said = stderr_of("plugins", stdout="/dev/full")
    assert status == 2
    assert said.startswith("groundup: No space left on device") and said.count("\n") == 1


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENOSPC])
@pytest.mark.parametrize("argv", [("init", "new.toml"), ("init", "folder/new.toml")])
def test_init_where_nothing_can_be_written(
    argv: tuple[str, ...], number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(SystemExit) as left:
        main(list(argv))
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"groundup: {os.strerror(number)}: ")


def test_an_error_of_the_program_itself_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(groundup.show, "print_plugins", fail)
    with pytest.raises(ZeroDivisionError):
        main(["plugins"])


WITHOUT_PRIVILEGES = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
"""Permissions of files don't concern root, except without these capabilities."""


@pytest.mark.skipif(
    bool(WITHOUT_PRIVILEGES) and shutil.which("setpriv") is None,
    reason="root needs setpriv to obey permissions",
)
@pytest.mark.parametrize(
    "argv",
    [
        ("run", "--data", "{here}"),
        ("show",),
        ("inspect", "model"),
        ("clean", "--yes"),
        ("init", "{locked}/x.toml"),
        ("import", "{locked}/model", "{here}/out"),
    ],
)
def test_a_folder_without_permission_is_one_message(argv: tuple[str, ...], tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    (locked / "runs").mkdir(parents=True)
    (tmp_path / "a.txt").write_text("A text.")
    words = [word.format(here=tmp_path, locked=locked) for word in argv]
    workspace = [] if argv[0] in ("init", "import") else ["--workspace", str(locked)]
    command = [*WITHOUT_PRIVILEGES, sys.executable, "-m", "groundup.cli", *words, *workspace]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    locked.chmod(0)
    try:
        ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    finally:
        locked.chmod(0o700)
    assert ran.returncode == 2, ran.stderr
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("groundup: ")]
    assert "Permission denied" in line and "belongs to " in line
    assert "Traceback" not in ran.stderr
