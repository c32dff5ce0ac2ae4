"""Safe file opening: regular files only, without following symlinks, blocking, or unlimited reads.

in:  a path
out: its bytes or their SHA-256, or Unreadable with a reason
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

_KINDS = (
    (stat.S_ISFIFO, "fifo"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISDIR, "folder"),
)


OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors of the system that concern this process rather than a file: no file is rejected for them."""


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


class _ReadFile(FileIO):
    """A file whose read errors are Unreadable: other errors of its user, such as a full disk, stay OSErrors."""

    def readinto(self, buffer: Any) -> int | None:
        """Read into the buffer. Raises Unreadable."""
        with unreadable():
            return super().readinto(buffer)

    def readall(self) -> bytes:
        """Read the rest. Raises Unreadable."""
        with unreadable():
            return super().readall()


@contextmanager
def open_regular(path: Path, max_bytes: int | None = None) -> Iterator[BufferedReader]:
    """Open a regular file of at most `max_bytes`. Raises Unreadable, also for errors while reading."""
    with unreadable():
        # Looked at before it is opened: opening a device can already do something (a tape rewinds).
        _refuse(os.lstat(path), max_bytes)
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open_descriptor(handle) as file:
        _refuse(os.fstat(handle), max_bytes)
        yield file


def open_descriptor(handle: int) -> BufferedReader:
    """The file of a descriptor. Its read errors are raised as Unreadable."""
    return BufferedReader(_ReadFile(handle))


@contextmanager
def unreadable() -> Iterator[None]:
    """Turn errors of the system that concern one file into Unreadable."""
    try:
        yield
    except OSError as error:
        if error.errno in OF_THE_PROCESS:
            raise
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
