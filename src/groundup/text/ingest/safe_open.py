"""Safe file opening: regular files only, without following symlinks, blocking, or unlimited reads.

in:  a path
out: its bytes or their SHA-256, or Unreadable with a reason
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

_KINDS = (
    (stat.S_ISFIFO, "fifo"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISDIR, "folder"),
)


class Unreadable(Exception):
    """The file can't be read. `reason` goes to the rejects log."""

    def __init__(
        self, reason: str, detail: str = "", value: float | None = None, threshold: float | None = None
    ) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.value, self.threshold = reason, detail, value, threshold


def irregular(mode: int) -> str:
    """Reason why a file of this `st_mode` isn't read ("fifo", "socket", "device" ...), "" for a regular file."""
    if stat.S_ISREG(mode):
        return ""
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "not_a_file")


@contextmanager
def open_regular(path: Path, max_bytes: int | None = None) -> Iterator[BufferedReader]:
    """Open a regular file of at most `max_bytes`. Raises Unreadable, also for errors while reading."""
    try:
        # Looked at before it is opened: opening a device can already do something (a tape rewinds).
        _refuse(os.lstat(path), max_bytes)
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            _refuse(os.fstat(handle), max_bytes)
            yield file
    except OSError as error:
        raise Unreadable("unreadable", error.strerror or str(error)) from None


def hash_regular(path: Path, max_bytes: int) -> str:
    """SHA-256 (hex) of a regular file, in constant memory. Raises Unreadable."""
    with open_regular(path, max_bytes) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse(status: os.stat_result, max_bytes: int | None) -> None:
    reason = "symlink" if stat.S_ISLNK(status.st_mode) else irregular(status.st_mode)
    if reason:
        raise Unreadable(reason)
    if max_bytes is not None and status.st_size > max_bytes:
        raise Unreadable("too_large", value=status.st_size, threshold=max_bytes)
