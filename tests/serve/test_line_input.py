"""Questions at a terminal: editing, the history's file and its mode; a pseudo-terminal stands for the person."""

import os
import pty
import select
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup.serve.line_input import HISTORY, history_file

SCRIPT = """
from groundup.serve.line_input import question_reader
read = question_reader()
while True:
    try:
        print('GOT', repr(read()), flush=True)
    except KeyboardInterrupt:
        print('CTRL-C', flush=True)
    except EOFError:
        print('END', flush=True)
        break
"""


def typed(keys: list[bytes], home: Path) -> str:
    """What a program that reads questions prints when these keys are pressed one after the other."""
    person, terminal = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"XDG_CACHE_HOME": os.fspath(home), "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(terminal)
    seen = b""

    def wait_for(mark: bytes, count: int) -> None:
        nonlocal seen
        deadline = time.monotonic() + 60
        while seen.count(mark) < count and time.monotonic() < deadline:
            if select.select([person], [], [], 0.2)[0]:
                try:
                    seen += os.read(person, 4096)
                except OSError:
                    return

    try:
        for number, pressed in enumerate(keys):
            wait_for(b"\x1b[?2004h", number + 1)  # the prompt is ready for pasted text
            time.sleep(0.1)
            os.write(person, pressed)
        wait_for(b"END", 1)
        program.wait(30)
    finally:
        program.kill()
        os.close(person)
    return seen.decode()


def test_lines_are_edited_recalled_and_cleared(tmp_path: Path) -> None:
    left = b"\x1b[D"
    out = typed([b"wat is it?" + left * 9 + b"h\r", b"half\x03", b"\x1b[A\r", b"\x04"], tmp_path)
    assert out.count("GOT 'what is it?'") == 2
    assert "CTRL-C" in out and "END" in out
    history = tmp_path / "groundup" / HISTORY
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "+what is it?" in history.read_text() and "half" not in history.read_text()
    assert "GOT 'what is it?'" in typed([b"\x1b[A\r", b"\x04"], tmp_path)


def test_the_history_is_private_and_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path))
    (tmp_path / "groundup").mkdir()
    (tmp_path / "groundup" / HISTORY).write_text("")
    (tmp_path / "groundup" / HISTORY).chmod(0o644)
    path = history_file()
    assert path is not None and stat.S_IMODE(path.stat().st_mode) == 0o600
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / "file"))
    assert history_file() is None
