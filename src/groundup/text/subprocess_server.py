"""Long-running helper subprocess that answers requests over its standard input and output.

in:  a command
out: its two pipes; it ends with this process and is restarted when it has crashed
"""

import functools
import os
import subprocess
import threading
import weakref
from collections.abc import Mapping
from typing import BinaryIO


class SubprocessServer:
    """One running subprocess. Hold `lock` from a request until its response is read."""

    def __init__(self, command: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdin and self._process.stdout
        self.requests: BinaryIO = self._process.stdin  # type: ignore[assignment]
        self.responses: BinaryIO = self._process.stdout  # type: ignore[assignment]
        self.lock = threading.RLock()
        self.stop = weakref.finalize(self, _stop, self._process, os.getpid())

    @property
    def running(self) -> bool:
        """Whether the subprocess is alive."""
        return self._process.poll() is None


def subprocess_server(command: tuple[str, ...], environment: tuple[tuple[str, str], ...]) -> SubprocessServer:
    """The running subprocess for a command. Every process, including forks, has its own."""
    server = _started(command, environment, os.getpid())
    if not server.running:
        server.stop()
        _started.cache_clear()
        server = _started(command, environment, os.getpid())
    return server


@functools.lru_cache(maxsize=8)
def _started(
    command: tuple[str, ...], environment: tuple[tuple[str, str], ...], owner: int
) -> SubprocessServer:
    return SubprocessServer(command, dict(environment))


def _stop(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill the subprocess; a fork of its owner only closes its own copies of the pipes."""
    if os.getpid() == owner:
        process.kill()
    for pipe in (process.stdin, process.stdout):
        assert pipe
        try:
            pipe.close()
        except BrokenPipeError:  # a request that it didn't live to read
            continue
    process.wait()
