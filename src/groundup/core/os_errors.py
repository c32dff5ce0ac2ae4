"""Errors of the operating system -> one message: what failed, where, and what to do.

in:  an exception of Python or of a library that wraps the system's error in its own type
out: a GroundupError, or None for an exception that has another cause

`report_errors` (command_errors.py), the executor's workers and the launcher's ranks call `explain` once, at the top of
their process. Code below lets errors of the system rise; where it knows what was written and how large it is, it wraps
the writes in `explain_os_errors`.
"""

import errno
import os
import pwd
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from groundup.core.errors import GroundupError

AGAIN = "run the same command again: it resumes"
_ELSEWHERE = "choose another folder (--workspace FOLDER; TMPDIR=FOLDER for temporary files)"
_SPACE = f"Free some space on that disk, or {_ELSEWHERE}, and {AGAIN}"
_PERMISSION = f"Ask the owner for permission, or {_ELSEWHERE}"
_READ_ONLY = f"That file system is mounted read-only: {_ELSEWHERE}, or remount it"
_DISK = f"The disk or its connection reports an error: check them (dmesg), then {AGAIN}"
_FILES = f"Raise the limit of open files (ulimit -n 4096), and {AGAIN}"
_MEMORY = f"Free memory or end other processes, or use fewer (--set runtime.workers=1), and {AGAIN}"
_PATH = "Check that path: it is missing, or not what is expected there. Another program may have changed it"
_TEMPORARY = "Set TMPDIR to a folder that can be written"
_ADVICE = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _SPACE,
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: _READ_ONLY,
    errno.EIO: _DISK,
    errno.ESTALE: _DISK,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: _MEMORY,
    errno.ENOENT: _PATH,
    errno.ENOTDIR: _PATH,
    errno.EISDIR: _PATH,
    errno.EEXIST: _PATH,
    errno.ENOTEMPTY: _PATH,
    errno.ELOOP: _PATH,
    errno.ENAMETOOLONG: _PATH,
}
_NUMBER = re.compile(
    r"os error (\d+)|Os \{ code: (\d+)|\berrno[ =:]*(\d+)|Error code (\d+) \(", re.IGNORECASE
)
"""How Rust (safetensors, tokenizers, Daft), Arrow and PyTorch write the system's error number into their messages."""
_TEXTS = {os.strerror(number): number for number in _ADVICE if number not in (errno.ENOENT, errno.EEXIST)} | {
    "database or disk is full": errno.ENOSPC,  # sqlite
    "disk I/O error": errno.EIO,  # sqlite
    "can't start new thread": errno.EAGAIN,
}
_SHORT_WRITE = re.compile(
    r"\d+ requested and \d+ written|PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+"
)
"""NumPy and PyTorch on a full disk."""


@contextmanager
def explain_os_errors(what: str, folder: Path, needed: int = 0) -> Iterator[None]:
    """Turn errors of the system into GroundupError.

    what: the data that is read or written; folder: where it is, for errors that name no path; needed: its bytes, 0 =
    unknown.
    """
    try:
        yield
    except BaseException as error:  # a panic of Rust code is no Exception
        explained = explain(error, what, folder, needed)
        if explained is None:
            raise
        raise explained from error


def explain(
    error: BaseException, what: str = "", folder: Path | None = None, needed: int = 0
) -> GroundupError | None:
    """The message for an error of the system, as an exception; None for other errors and for a GroundupError."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, GroundupError):
        number = _error_number(cause)
        if number is not None:
            return GroundupError(_message(cause, number, what, folder, needed))
        cause = cause.__cause__
    return None


def exit_reason(code: int | None) -> str:
    """How a process ended that sent no result; `code` as `subprocess` and `multiprocessing` give it."""
    if code is None or code >= 0:
        return f"exited with status {code} without a result"
    return f"was killed by signal {-code} ({signal.Signals(-code).name})"


def _error_number(error: BaseException) -> int | None:
    """The system's error number; 0 for an OSError without one, None for other errors."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    text = str(error)
    match = _NUMBER.search(text)
    if match:
        return int(next(group for group in match.groups() if group))
    if _SHORT_WRITE.search(text):
        return errno.ENOSPC
    number = next((number for phrase, number in _TEXTS.items() if phrase in text), None)
    return 0 if number is None and isinstance(error, OSError) else number


def _message(error: BaseException, number: int, what: str, folder: Path | None, needed: int) -> str:
    named = getattr(error, "filename", None)
    path = Path(os.fsdecode(named)) if isinstance(named, str | bytes) else folder
    reason = os.strerror(number) if number else " ".join(str(error).split()) or type(error).__name__
    advice = _ADVICE.get(number, f"Remove the cause, and {AGAIN}")
    if "No usable temporary directory" in str(error):
        path, reason, advice = None, "no temporary folder can be written", _TEMPORARY
    parts = [part for part in (what, reason, str(path) if path is not None else "") if part]
    details = _details(number, path, needed)
    return f"{': '.join(parts)}{f' ({details})' if details else ''}. {advice}"


def _details(number: int, path: Path | None, needed: int) -> str:
    """The free bytes of a full disk, or the owner of a path without permission; "" if neither is known."""
    advice = _ADVICE.get(number)
    if path is None or advice not in (_SPACE, _PERMISSION):
        return ""
    try:
        existing = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
        if advice == _SPACE:
            needs = f"it needs {needed:,} bytes, and " if needed else ""
            return f"{needs}{shutil.disk_usage(existing).free:,} bytes are free"
        owner, user = (pwd.getpwuid(uid).pw_name for uid in (existing.lstat().st_uid, os.geteuid()))
        return f"{existing} belongs to {owner}, and the user of this process is {user}"
    except (OSError, KeyError, StopIteration):
        return ""
