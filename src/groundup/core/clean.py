"""Unused files of a workspace: everything that no run record refers to and no running process builds.

in:  a store
out: a list of files and folders with their sizes, and their deletion

A run record (`runs/<name>.json`) refers to the artifacts of the newest run of that name. Artifacts of earlier
versions of a blueprint, interrupted builds, free locks and the trackers' files of such artifacts are unused.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from groundup.core.atomic_io import REMOVED, remove
from groundup.core.errors import StoreError
from groundup.core.store import LOCK, PART, Store

_SUFFIXES = {
    PART: "interrupted build",
    LOCK: "free lock",
    REMOVED: "interrupted deletion",
    ".old": "interrupted replacement",
}
_ARTIFACT = re.compile(r"[\w.-]+-[0-9a-f]{12}")


@dataclass(frozen=True)
class UnusedItem:
    """A file or folder that may be deleted. kind: artifact, interrupted build, free lock, tracker files, ..."""

    path: Path
    kind: str
    bytes: int


def find_unused(store: Store) -> list[UnusedItem]:
    """Everything unused, by path. Raises StoreError for a run record that can't be read."""
    used, building = store.referenced_artifacts(), store.artifacts_being_built()
    items = []
    for path in sorted(store.artifacts.iterdir()) if store.artifacts.is_dir() else []:
        name, kind = path.name, "artifact"
        for suffix, meaning in _SUFFIXES.items():
            if name.endswith(suffix):
                name, kind = name.removesuffix(suffix), meaning
        referenced = kind == "artifact" and name in used
        if _ARTIFACT.fullmatch(name) and name not in building and not referenced:
            items.append(UnusedItem(path, kind, _size(path)))
    items += [
        UnusedItem(path, "cache", _size(path)) for path in sorted((store.root / "plans").glob("*.json"))
    ]
    for path in sorted((store.root / "trackers").glob("*/*")):
        if _ARTIFACT.fullmatch(path.name) and path.name not in used | building.keys():
            items.append(UnusedItem(path, "tracker files", _size(path)))
    return items


def delete_unused(store: Store) -> list[UnusedItem]:
    """Delete everything unused and return it. Raises StoreError while a run is in progress in the workspace.

    The artifacts of a run in progress aren't in any record yet.
    """
    with store.exclusive():
        building = store.artifacts_being_built()
        if building:
            name, process = next(iter(building.items()))
            raise StoreError(
                f"process {process} is building {name} in {store.root}, and what it reads may be in no record yet. "
                "Nothing was deleted. Run the same command again when it has finished"
            )
        items = find_unused(store)
        for item in items:
            remove(item.path)
        store.digests().forget_missing()
    return items


def _size(path: Path) -> int:
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size
    files = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    return sum(file.lstat().st_size for file in files)
