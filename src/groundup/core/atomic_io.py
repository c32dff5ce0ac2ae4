"""Durable writes of files and folders, all in one order.

Write to a temporary name, fsync the files, rename, fsync the folder; only then delete the old version. After a crash
at any moment the old or the new version exists, never neither and never a mixture.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

REMOVED = ".removed"
"""Suffix of a folder that is being deleted."""


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the content of `path` by `data` atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    atomic_replace(part, path)


def temp_path(path: Path) -> Path:
    """A temporary name beside `path` that no other process uses."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")


def atomic_replace(part: Path, path: Path) -> None:
    """Rename the complete file `part` to `path` durably: fsync, rename, fsync the folder."""
    _fsync_file(part)
    part.replace(path)
    fsync_dir(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` by `text` in UTF-8; lone surrogates are written as escapes."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Replace the content of `path` by `value` as indented JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def publish_dir(part: Path, final: Path) -> None:
    """Rename the folder `part` to `final` durably: fsync its files and folders, rename, fsync the parent.

    An existing folder `final` is renamed first and deleted last.
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


def remove(path: Path) -> None:
    """Delete a file or folder; a folder is renamed first, so that a crash never leaves a part of it under its name."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    doomed = path if path.suffix == REMOVED else path.with_name(path.name + REMOVED)
    if doomed != path:
        shutil.rmtree(doomed, ignore_errors=True)
        path.rename(doomed)
        fsync_dir(path.parent)
    shutil.rmtree(doomed)


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


def file_entry(path: Path) -> dict[str, Any]:
    """Size and checksum of a file, as manifests list them."""
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def first_mismatch(
    folder: Path, entries: Mapping[str, Any], sha256: Callable[[Path], str] = sha256_file
) -> str | None:
    """The first difference between the files of a folder and the entries of its manifest, or None."""
    for name, entry in entries.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, the manifest lists {entry['bytes']}"
        if sha256(path) != entry["sha256"]:
            return f"{name} does not match its checksum"
    return None


def _fsync_file(path: Path) -> None:
    if path.is_symlink():
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())
