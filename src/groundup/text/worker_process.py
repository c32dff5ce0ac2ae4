"""Worker process: calls one function with the arguments that this process sends, and sends back what it returns.

in:  a function that can be imported by name (or a partial of one), then the arguments of each call, and an open file
out: what the call returns; each item of what it returns, if that is an iterator; the error that it raised

The two processes share a socket, not shared memory or a file, so a worker starts where neither /dev/shm nor /tmp can be
written. It ends with this process, also in the middle of a call.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from functools import lru_cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any, Literal

from groundup.core.errors import GroundupError
from groundup.core.os_errors import exit_reason, explain

_OOM_SCORE = Path("/proc/self/oom_score_adj")
_EXPENDABLE, _MAX_OOM_SCORE = 250, 1000
"""Added to the score by which Linux chooses the process that it kills where memory runs out."""

Function = Callable[..., Any]
Reply = tuple[Literal["item", "end", "raised"], Any]


class WorkerDied(Exception):
    """The worker process ended before it replied."""


class WorkerProcess:
    """One running worker process; a context manager that ends it."""

    def __init__(self, function: Function) -> None:
        self.connection, theirs = Pipe()
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)  # noqa: PTH109
        with theirs:
            self._process = subprocess.Popen(
                (sys.executable, "-P", "-m", "groundup.text.worker_process", str(theirs.fileno())),
                env=os.environ | {"PYTHONPATH": path, "PYTHONUTF8": "1"},
                stdin=subprocess.PIPE,  # nothing is sent: its end tells the worker that this process has ended
                stdout=_messages(),
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        self.stop = weakref.finalize(self, _stop, self._process, self.connection, os.getpid())
        self._send(pickle.dumps(function))

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def call(self, *arguments: Any, file: int | None = None) -> None:
        """Start a call. file: a descriptor, which the function receives as its last argument. Raises WorkerDied."""
        self._send(pickle.dumps((arguments, file is not None)))
        if file is not None:
            try:
                send_handle(self.connection, file, self._process.pid)
            except (BrokenPipeError, ConnectionResetError):
                raise self._death() from None

    def replies(self) -> Iterator[Any]:
        """Everything that the call returns. Raises its error; WorkerDied where the process has ended."""
        while True:
            try:
                kind, value = self.connection.recv()
            except (EOFError, ConnectionResetError):
                raise self._death() from None
            if kind == "raised":
                raise value
            if kind == "end":
                return
            yield value

    def reply(self) -> Any:
        """What the call returns, of a function that returns no iterator."""
        (value,) = self.replies()
        return value

    def _send(self, packed: bytes) -> None:
        try:
            self.connection.send_bytes(packed)
        except (BrokenPipeError, ConnectionResetError):
            raise self._death() from None

    def _death(self) -> WorkerDied:
        return WorkerDied(exit_reason(self._process.wait()))


def _messages() -> int:
    """Where what a worker prints goes: to stderr, since stdout is for data."""
    try:
        return sys.__stderr__.fileno() if sys.__stderr__ is not None else subprocess.DEVNULL
    except (OSError, ValueError):
        return subprocess.DEVNULL


def _stop(process: subprocess.Popen[bytes], connection: Connection, owner: int) -> None:
    """Kill the process; a fork of its owner only closes its own copies of the descriptors."""
    connection.close()
    assert process.stdin
    process.stdin.close()
    if os.getpid() == owner:
        process.kill()
        process.wait()


def _main(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the owner decides
    threading.Thread(target=_end_with_owner, daemon=True).start()
    with contextlib.suppress(OSError, ValueError):
        score = int(_OOM_SCORE.read_text()) + _EXPENDABLE
        _OOM_SCORE.write_text(str(min(score, _MAX_OOM_SCORE)))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        function = connection.recv_bytes()
        while True:
            arguments, has_file = pickle.loads(connection.recv_bytes())
            files = (recv_handle(connection),) if has_file else ()
            for reply in _answer(function, (*arguments, *files)):
                connection.send(reply)


def _answer(packed: bytes, arguments: tuple[Any, ...]) -> Iterator[Reply]:
    try:
        result = _function(packed)(*arguments)
        for item in result if isinstance(result, Iterator) else (result,):
            yield "item", item
        yield "end", None
    except Exception as error:
        yield "raised", error_of_worker(error)


def error_of_worker(error: Exception) -> Exception:
    """The error as its owner raises it: a GroundupError for users' mistakes and errors of the system."""
    if isinstance(error, GroundupError):
        return error
    return explain(error) or RuntimeError(
        f"in a worker process:\n{''.join(traceback.format_exception(error))}"
    )


@lru_cache(1)
def _function(packed: bytes) -> Function:
    function: Function = pickle.loads(packed)
    return function


def _end_with_owner() -> None:
    """End this process, in whatever call it is, when the process that started it has ended."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _main(Connection(int(sys.argv[1])))
