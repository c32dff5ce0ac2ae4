"""Source `files`: folders, files and globs, in every format of `text/ingest/formats`.

in:  `paths`; a folder includes all files below it
out: documents of each file: one per text file, one per JSON line, one per message of a mailbox ...
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from io import BufferedReader
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from groundup.core.errors import DataError
from groundup.text.ingest import discover
from groundup.text.ingest.file_source import ReadingRecipe
from groundup.text.ingest.safe_open import open_regular
from groundup.text.ingest.types import SourceFile


class Files(ReadingRecipe):
    """Your own files, folders and globs; folders are searched recursively.

    Paths are not part of the fingerprint; contents are.
    """

    not_identity: ClassVar[frozenset[str]] = ReadingRecipe.not_identity | {"paths"}

    paths: tuple[str, ...] = Field(default=(), description="folders, files and globs (`docs/**/*.md`)")
    skip_ignored: bool = Field(
        default=True,
        description="leave out workspaces, virtual environments, node_modules, caches, and files that a .gitignore "
        "within a folder excludes; false reads them too",
    )

    def files(self) -> Iterator[SourceFile]:
        """Every file that matches `paths`. Raises DataError for a path that matches nothing."""
        if not self.paths:
            raise DataError('ingest.sources: `files` needs paths, e.g. paths = ["docs/**/*.md"].')
        yield from discover.find(self.paths, self.skip_ignored)

    def open(self, file: SourceFile) -> AbstractContextManager[BufferedReader]:
        """The file, if it is a regular one. Raises Unreadable. Formats that read it whole limit its size."""
        return open_regular(Path(file.location))
