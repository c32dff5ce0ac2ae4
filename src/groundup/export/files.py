"""File operations of export and import: new folders and files, JSON objects.

in:  a path that does not exist yet, or a JSON file
out: a folder or file that is published atomically; a JSON object
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from groundup.core.atomic_io import atomic_replace, publish_dir, temp_path, write_bytes
from groundup.core.errors import DataError, GroundupError
from groundup.core.os_errors import explain_os_errors


@contextmanager
def new_folder(target: Path, size: int) -> Iterator[Path]:
    """A temporary folder that is renamed to `target` on success and removed on failure.

    size: expected number of bytes, for the message about a full disk. Raises GroundupError if `target` exists.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise GroundupError(f"{target} already exists. Choose another folder, or remove it")
    temporary = temp_path(target)
    try:
        with explain_os_errors("the model", target.parent, size):
            temporary.mkdir(parents=True)
            yield temporary
            publish_dir(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_file(target: Path, size: int) -> Iterator[Path]:
    """A temporary path that is renamed to `target` on success and removed on failure."""
    if target.exists():
        raise GroundupError(f"{target} already exists. Choose another name, or remove it")
    temporary = temp_path(target)
    try:
        with explain_os_errors("the model", target.parent, size):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            atomic_replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def copy_files(source: Path, target: Path, names: tuple[str, ...]) -> None:
    """Copies the files of `names` that exist in `source`."""
    for name in names:
        if (source / name).is_file():
            write_bytes(target / name, (source / name).read_bytes())


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises DataError naming the file."""
    try:
        payload = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not isinstance(payload, dict):
        raise DataError(f"{path}: expected a JSON object at the top level")
    return payload
