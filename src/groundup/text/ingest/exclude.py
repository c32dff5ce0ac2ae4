"""Exclusion of files that are not a corpus: workspaces, virtual environments, caches, and what .gitignore names.

in:  the entries of a folder below a source's root
out: the reason why an entry is left out, or ""

The root itself is never left out, and .gitignore files above it don't count: naming a folder means it.
"""

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.text.ingest.safe_open import Unreadable, open_regular

CACHES = frozenset({"__pycache__", ".cache", ".eggs", ".gradle", ".hypothesis", ".ipynb_checkpoints", ".mypy_cache",
                    ".next", ".nox", ".npm", ".nuxt", ".parcel-cache", ".pytest_cache", ".ruff_cache", ".terraform",
                    ".tox", ".yarn"})  # fmt: skip
"""Folder names of caches of well-known tools."""
_CACHE_TAG = b"Signature: 8a477f597d28d172789f06886806bc55"
"""First bytes of CACHEDIR.TAG, https://bford.info/cachedir."""
_ARTIFACT = re.compile(r"[a-z_]+-[0-9a-f]{12}(?:\.part)?")
_MAX_BYTES, _MAX_WILDCARDS = 1 << 20, 16


@dataclass(frozen=True, slots=True)
class GitIgnore:
    """Patterns of one .gitignore; they apply to paths below `folder`."""

    folder: Path
    patterns: Any


def excluded_folder(folder: Path) -> str:
    """Why a folder is left out by its kind: `workspace`, `virtual_environment`, `node_modules` or `cache`; else ""."""
    if folder.name == "node_modules":
        return "node_modules"
    if folder.name in CACHES or _head(folder / "CACHEDIR.TAG", len(_CACHE_TAG)) == _CACHE_TAG:
        return "cache"
    if _is_file(folder / "pyvenv.cfg") or _is_folder(folder / "conda-meta"):
        return "virtual_environment"
    return "workspace" if is_workspace(folder) else ""


def is_workspace(folder: Path) -> bool:
    """Whether groundup builds here: it has artifacts/<stage>-<12 hex>."""
    try:
        return any(_ARTIFACT.fullmatch(entry.name) for entry in (folder / "artifacts").iterdir())
    except OSError:
        return False


def read_gitignore(folder: Path) -> tuple[GitIgnore, ...]:
    """The folder's .gitignore, if it has a readable one."""
    from pathspec import GitIgnoreSpec

    try:
        with open_regular(folder / ".gitignore", _MAX_BYTES) as file:
            lines = file.read().decode("utf-8", "replace").splitlines()
    except Unreadable:
        return ()
    # Each wildcard of a pattern multiplies the time that a match can take.
    lines = [line for line in lines if line.count("*") <= _MAX_WILDCARDS]
    return (GitIgnore(folder, GitIgnoreSpec.from_lines(lines)),)


def is_ignored(path: Path, is_folder: bool, ignores: tuple[GitIgnore, ...]) -> bool:
    """Whether the .gitignore files from the root down to the path's folder exclude it; the deepest one decides."""
    for ignore in reversed(ignores):
        name = path.relative_to(ignore.folder).as_posix() + "/" * is_folder
        decision = ignore.patterns.check_file(name).include
        if decision is not None:
            return bool(decision)
    return False


def _head(path: Path, size: int) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(size)
    except Unreadable:
        return b""


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False
