"""Source `git`: files of a git repository at one revision.

in:  a local repository, `revision`
out: a document per tracked file; untracked files and uncommitted changes are ignored

Only objects are read (`ls-tree`, `cat-file`): no filters, hooks or fetches. Commands in the repository's own
configuration are never run.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, ClassVar, cast

from pydantic import Field

from groundup.core.errors import DataError
from groundup.core.os_errors import explain_os_errors
from groundup.text.ingest.discover import glob_to_regex, printable_path
from groundup.text.ingest.file_source import ReadingRecipe
from groundup.text.ingest.safe_open import Unreadable
from groundup.text.ingest.types import SourceFile, SourceRecipe
from groundup.text.subprocess_server import SubprocessServer, subprocess_server

_SAFE = (
    *("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}", "-c", "protocol.allow=never"),
    "--no-pager",
    "--no-replace-objects",
    "--no-optional-locks",
)
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ALLOW_PROTOCOL": "none",  # an incomplete clone would fetch what is missing, by a command of its choice
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C.UTF-8",
}
_KINDS = {"120000": "symlink", "160000": "submodule"}
_LARGE_FILE = b"version https://git-lfs.github.com/spec/"
_IN_MEMORY, _CHUNK = 1 << 20, 1 << 20


class Git(ReadingRecipe):
    """Tracked files of a git repository at one revision.

    The repository's location is not part of the fingerprint; blob digests are.
    """

    not_identity: ClassVar[frozenset[str]] = SourceRecipe.not_identity | {
        "repository",
        "revision",
        "include",
        "exclude",
    }

    repository: str = Field(default="", description="local repository, or a folder in one")
    revision: str = Field(default="HEAD", description="commit, branch or tag")
    include: tuple[str, ...] = Field(default=("**",), description="globs of paths to include")
    exclude: tuple[str, ...] = Field(default=(), description="globs of paths to exclude")

    def files(self) -> Iterator[SourceFile]:
        """Tracked files by path, with blob digests. Raises DataError if there are none."""
        if not self.repository:
            raise DataError('ingest.sources: `git` needs a repository, e.g. repository = "~/src/project".')
        commit = self._run(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{self.revision}^{{commit}}"
        )
        listed = self._run("ls-tree", "-r", "-z", "--long", commit.decode().strip())
        wanted, unwanted = map(_any_glob, (self.include, self.exclude))
        any_file = False
        for entry in filter(None, listed.split(b"\x00")):
            about, _, name = entry.partition(b"\t")
            mode, _, blob, size = about.decode().split()
            path = printable_path(name)
            if any(glob.fullmatch(path) for glob in wanted) and not any(
                glob.fullmatch(path) for glob in unwanted
            ):
                any_file = True
                reject_reason = _KINDS.get(mode, "")
                yield SourceFile(
                    path, blob, reject_reason, bytes=int(size) if size.isdecimal() else 0, digest=blob
                )
        if not any_file:
            raise DataError(
                f"ingest.sources: git repository {self.repository!r} has no tracked file at {self.revision!r} that "
                f"matches include = {list(self.include)}, exclude = {list(self.exclude)}."
            )

    @contextmanager
    def open(self, file: SourceFile) -> Iterator[BinaryIO]:
        """Content of a blob. Raises Unreadable, also for a Git LFS pointer."""
        if file.bytes > self.max_file_bytes:
            raise Unreadable("too_large", value=file.bytes, threshold=self.max_file_bytes)
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spooled:
            copy = cast(BinaryIO, spooled)
            self._copy(str(file.location), copy)
            copy.seek(0)
            if copy.read(len(_LARGE_FILE)) == _LARGE_FILE:
                raise Unreadable("lfs_pointer", "the file itself isn't in the repository")
            copy.seek(0)
            yield copy

    def _copy(self, blob: str, copy: BinaryIO) -> None:
        running = self._reader()
        with running.lock:
            try:
                running.requests.write(blob.encode() + b"\n")
                running.requests.flush()
                header = running.responses.readline().split()
            except BrokenPipeError:
                header = []
            if len(header) != 3:
                if not header:
                    running.stop()
                raise Unreadable("missing_object", f"git has no blob {blob}")
            left = int(header[2]) + 1  # and a line end
            while left and (chunk := running.responses.read(min(left, _CHUNK))):
                left -= len(chunk)
                with explain_os_errors(f"a copy of blob {blob}", Path(tempfile.gettempdir())):
                    copy.write(chunk if left else chunk[:-1])
            if left:
                running.stop()
                raise Unreadable("damaged_object", f"git ended within blob {blob}")

    def _command(self, *words: str) -> tuple[str, ...]:
        return ("git", "-C", str(Path(self.repository).expanduser().absolute()), *_SAFE, *words)

    def _reader(self) -> SubprocessServer:
        return subprocess_server(self._command("cat-file", "--batch"), tuple(sorted(_environment().items())))

    def _run(self, *words: str) -> bytes:
        """Output of a git command. Raises DataError with an explanation."""
        try:
            done = subprocess.run(self._command(*words), env=_environment(), capture_output=True, check=False)
        except FileNotFoundError:
            raise DataError("ingest.sources: `git` needs the program git, which isn't installed.") from None
        if done.returncode == 0:
            return done.stdout
        message = done.stderr.decode("utf-8", "replace").strip()
        if "dubious ownership" in message:
            raise DataError(
                f"ingest.sources: {self.repository!r} belongs to another user, so git won't read it. If you trust "
                f"it: git config --global --add safe.directory {Path(self.repository).expanduser().resolve()}"
            )
        if "cannot change to" in message or "not a git repository" in message:
            raise DataError(f"ingest.sources: {self.repository!r} is no git repository. Check the spelling.")
        if words[0] == "rev-parse":
            raise DataError(
                f"ingest.sources: git repository {self.repository!r} has no revision {self.revision!r}. "
                "Name a commit, branch or tag; `git log` and `git branch -a` list them."
            )
        raise DataError(f"ingest.sources: git {words[0]} failed in {self.repository!r}: {message[:300]}")


def _environment() -> dict[str, str]:
    """Environment without variables that redirect git."""
    return {key: value for key, value in os.environ.items() if not key.startswith("GIT_")} | _ENVIRONMENT


def _any_glob(patterns: tuple[str, ...]) -> list[re.Pattern[str]]:
    return [glob_to_regex(pattern) for pattern in patterns]
