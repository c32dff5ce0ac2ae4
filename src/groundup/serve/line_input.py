"""Questions typed at a terminal, with line editing and a history; plain lines where stdin or stdout is none.

in:  key strokes, or lines of stdin
out: a function that reads one question; the history in the user's cache folder, readable by the user alone
"""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from groundup.core.environment import cache_folder

HISTORY = "chat-history"
PROMPT = "> "


def is_interactive() -> bool:
    """Whether a person types the questions."""
    return sys.stdin.isatty()


def question_reader() -> Callable[[], str]:
    """A function that returns the next question; it raises EOFError at the end of the input."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        return _editing_reader()
    return _read_line


def _read_line() -> str:
    if sys.stdin.isatty():
        print(PROMPT, end="", flush=True, file=sys.stderr)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _editing_reader() -> Callable[[], str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory

    class QuestionHistory(FileHistory):
        """A file of questions. A disk that can't take one doesn't stop the chat."""

        def store_string(self, string: str) -> None:
            with contextlib.suppress(OSError):
                super().store_string(string.encode("utf-8", "replace").decode("utf-8"))

    path = history_file()
    history: History = InMemoryHistory() if path is None else QuestionHistory(path)
    session: PromptSession[str] = PromptSession(history=history)
    return lambda: session.prompt("\n" + PROMPT)


def history_file() -> Path | None:
    """The history's file, with mode 600; None where it can't be written."""
    path = cache_folder() / HISTORY
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)
    except OSError:
        return None
    return path
