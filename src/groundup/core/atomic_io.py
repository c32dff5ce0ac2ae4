"""Every durable write of the project, in one place and one order.

Write beside the target, fsync the file, rename, fsync the folder; only then may the old be deleted.
A crash at any moment leaves the old or the new, never neither and never a mixture.
"""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundup.core.errors import GroundupError

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
"""No room, over the quota, over the limit of a file, a failing device, mounted read-only."""


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    atomic_replace(part, path)


def temp_path(path: Path) -> Path:
    """Where to write what shall become `path`: no other process writes there, not even a dead one's orphan."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")


def atomic_replace(part: Path, path: Path) -> None:
    """Make the complete file `part` appear as `path`: fsync, rename, fsync the folder."""
    _fsync_file(part)
    part.replace(path)
    fsync_dir(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8; what UTF-8 can't spell is written as an escape)."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def publish_dir(part: Path, final: Path) -> None:
    """Make the folder `part` appear as `final`: fsync its files and folders, rename, fsync the parent.

    A folder already at `final` is moved aside first and deleted last.
    """
    for folder, _, files in os.walk(part):
        for name in files:
            _fsync_file(Path(folder) / name)
        fsync_dir(Path(folder))
    old = final.with_name(final.name + ".old")
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
    part.rename(final)
    fsync_dir(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def fsync_dir(path: Path) -> None:
    """Make the entries of a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def explain_disk_errors(what: str, folder: Path, needed: int = 0) -> Iterator[None]:
    """Raise GroundupError where the disk refuses to be written. needed: bytes that `what` takes, 0 = unknown."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        needs = f"it needs {needed:,} bytes, and " if needed else ""
        raise GroundupError(
            f"{what} could not be written to {folder}: {os.strerror(error.errno or 0)}; "
            f"{needs}{_free_bytes(folder):,} bytes are free. Make room on that disk, and run the same command "
            "again: it goes on from what is whole"
        ) from error


def _free_bytes(folder: Path) -> int:
    """Room on the disk that holds `folder`, whether the folder exists yet or not."""
    here = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(here).free


def _fsync_file(path: Path) -> None:
    if path.is_symlink():
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())
