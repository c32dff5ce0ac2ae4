"""File discovery: folders, files and globs -> source files, including unreadable ones.

in:  paths as written in a blueprint or on the command line
out: SourceFile in a stable order; paths are relative, so moving the whole folder changes nothing

A symlink to a file within its root is read. A symlink to a folder within is not followed: the folder is listed anyway.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from groundup.core.errors import DataError
from groundup.text.ingest.exclude import GitIgnore, excluded_folder, is_ignored, read_gitignore
from groundup.text.ingest.safe_open import OF_THE_PROCESS, irregular
from groundup.text.ingest.types import SourceFile

UNLISTED = "unreadable_folder"
VERSION_CONTROL = frozenset({".git", ".hg", ".svn", ".bzr", "CVS"})
_MAGIC = re.compile(r"[*?\[]")
_WILDCARD = re.compile(r"[*?]")
_ESCAPE = re.compile(r"\\x[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Root:
    """A folder to list, a regex of the matching paths (None: all), and the depth (None: unlimited)."""

    pattern: str
    folder: Path
    meant: re.Pattern[str] | None = None
    depth: int | None = None
    is_file: bool = False

    def means(self, file: SourceFile) -> bool:
        """Whether a file matches. A folder that can't be listed always does: its content is unknown."""
        return (
            self.meant is None
            or file.reject_reason == UNLISTED
            or self.meant.fullmatch(file.path) is not None
        )


def find(patterns: Iterable[str], skip_ignored: bool = False) -> Iterator[SourceFile]:
    """Files that match `patterns`, each once. Raises DataError for a pattern that matches nothing."""
    roots = [_root(pattern) for pattern in patterns]
    labels = _labels([root.folder for root in roots])
    seen: set[str] = set()  # paths may overlap
    for root in roots:
        matched = False
        for file in _walk(root.folder, root.depth, skip_ignored and not root.is_file):
            if not root.means(file):
                continue
            matched = True
            full_path = f"{root.folder}/{file.path}"
            if full_path not in seen:
                seen.add(full_path)
                label = labels[root.folder]
                yield SourceFile(
                    label + file.path, file.location, file.reject_reason, file.detail, _bytes(file)
                )
        if not matched:
            if root.meant is None and root.folder.is_dir():
                raise DataError(
                    f"paths: {root.pattern!r} is a folder without any file. Put your texts there."
                )
            raise DataError(
                f"paths: {root.pattern!r} matches no file. Looked in {root.folder}. Check the spelling."
            )


def glob_to_regex(pattern: str) -> re.Pattern[str]:
    """Glob as a regex: `*` and `?` stay within a folder, `**` crosses folders, `[...]` is a set."""
    regex, at = "", 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            regex, at = regex + "(?:.*/)?", at + 3
        elif pattern.startswith("**", at):
            regex, at = regex + ".*", at + 2
        elif pattern[at] == "*":
            regex, at = regex + "[^/]*", at + 1
        elif pattern[at] == "?":
            regex, at = regex + "[^/]", at + 1
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            chosen = pattern[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            regex, at = regex + "[" + ("^" + chosen[1:] if chosen[0] == "!" else chosen) + "]", end + 1
        else:
            regex, at = regex + re.escape(pattern[at]), at + 1
    return re.compile(regex, re.DOTALL)


def _root(pattern: str) -> Root:
    path = Path(pattern).expanduser()
    if path.is_dir():
        return Root(pattern, path.resolve())
    if path.exists() or path.is_symlink():
        return Root(pattern, path.parent.resolve(), re.compile(re.escape(path.name)), 1, is_file=True)
    parts = path.parts
    fixed = next((n for n, part in enumerate(parts) if _is_pattern(part, Path(*parts[: n + 1]))), None)
    if fixed is None:
        raise DataError(f"paths: {pattern!r} doesn't exist. Looked for {path.absolute()}.")
    folder = Path(*parts[:fixed])
    if not folder.is_dir():
        raise DataError(f"paths: {pattern!r} matches no file, since there is no folder {folder.absolute()}.")
    inside = "/".join(parts[fixed:])
    depth = None if "**" in inside else len(parts) - fixed
    return Root(pattern, folder.resolve(), glob_to_regex(inside), depth)


def _is_pattern(part: str, path: Path) -> bool:
    """Whether a part of a path is a pattern; brackets in the name of a folder that exists are not."""
    return bool(_WILDCARD.search(part)) or (bool(_MAGIC.search(part)) and not path.is_dir())


def _labels(folders: list[Path]) -> dict[Path, str]:
    """Path prefix of each root: empty for a single one, else its name, made unique."""
    unique = list(dict.fromkeys(folders))
    if len(unique) == 1:
        return {unique[0]: ""}
    labels: dict[Path, str] = {}
    for folder in unique:
        label, twin = f"{folder.name}/", 2
        while label in labels.values():
            label, twin = f"{folder.name}-{twin}/", twin + 1
        labels[folder] = label
    return labels


def _walk(root: Path, depth: int | None, skip_ignored: bool) -> Iterator[SourceFile]:
    """All entries under `root` by name, with relative paths; without recursion."""
    waiting: list[tuple[Path, tuple[GitIgnore, ...]]] = [(root, ())]
    while waiting:
        folder, ignores = waiting.pop()
        ignores += read_gitignore(folder) if skip_ignored else ()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            if error.errno in OF_THE_PROCESS:
                raise
            yield SourceFile(_relative(str(folder), root) + "/", folder, UNLISTED, error.strerror or "")
            continue
        folders: list[Path] = []
        for entry in entries:
            path = Path(entry.path)
            is_folder = entry.is_dir(follow_symlinks=False)
            if skip_ignored and (reason := _left_out(path, is_folder, ignores)):
                yield SourceFile(_relative(entry.path, root) + "/" * is_folder, path, reason)
            elif entry.is_symlink():
                yield _link(path, root)
            elif not is_folder:
                yield SourceFile(_relative(entry.path, root), path, _refused(entry))
            elif entry.name in VERSION_CONTROL:
                yield SourceFile(_relative(entry.path, root) + "/", path, "version_control")
            else:
                folders.append(path)
        if depth is None or len(folder.relative_to(root).parts) + 1 < depth:
            waiting.extend((folder, ignores) for folder in reversed(folders))


def _left_out(path: Path, is_folder: bool, ignores: tuple[GitIgnore, ...]) -> str:
    """Why an entry isn't read although it could be; "" if it is read."""
    if is_folder and path.name not in VERSION_CONTROL and (reason := excluded_folder(path)):
        return reason
    return "gitignored" if ignores and is_ignored(path, is_folder, ignores) else ""


def _link(path: Path, root: Path) -> SourceFile:
    name, target = _relative(str(path), root), str(path.readlink())
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return SourceFile(name, path, "broken_symlink", _printable(target))
    except (OSError, RuntimeError) as error:  # RuntimeError: how Python < 3.13 reports a loop
        loop = isinstance(error, RuntimeError) or "symbolic links" in str(error)
        return SourceFile(name, path, "symlink_loop" if loop else "unreadable", _printable(target))
    if real != root and root not in real.parents:
        return SourceFile(name, path, "symlink_outside_root", _printable(target))
    if stat.S_ISDIR(mode):
        loop = real == path.parent or real in path.parents
        return SourceFile(name, path, "symlink_loop" if loop else "symlink_to_folder", _printable(target))
    return SourceFile(name, real, irregular(mode))


def _bytes(file: SourceFile) -> int:
    try:
        return 0 if file.reject_reason else os.lstat(file.location).st_size
    except OSError:  # deleted meanwhile; opening it reports the error
        return 0


def _refused(entry: os.DirEntry[str]) -> str:
    try:
        return irregular(entry.stat(follow_symlinks=False).st_mode)
    except OSError:
        return "unreadable"


def _relative(path: str, root: Path) -> str:
    """As `Path.relative_to`, which takes ten times as long."""
    return _printable(path[len(str(root)) :].lstrip("/") or ".")


def printable_path(name: bytes) -> str:
    r"""A path as UTF-8, different for each path: bytes that are no UTF-8 become \xNN.

    In such paths, and in paths that contain \xNN literally, backslashes are doubled.
    """
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return name.replace(b"\\", rb"\\").decode("utf-8", "backslashreplace")
    return text.replace("\\", r"\\") if _ESCAPE.search(text) else text


def _printable(path: str) -> str:
    return printable_path(os.fsencode(path))
