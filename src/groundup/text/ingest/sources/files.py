"""Source: folders, files and globs, in every format that `text/ingest/formats` knows.

in:  `paths`; a folder means every file in it at any depth
out: the documents in each file: one in a text, one for each line of JSON lines, each message of a mailbox ...
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
    """Files, folders and globs of your own; everything below a folder is looked at.

    Where they lie is no part of what they are: the contents are fingerprinted.
    """

    not_identity: ClassVar[frozenset[str]] = ReadingRecipe.not_identity | {"paths"}

    paths: tuple[str, ...] = Field(default=(), description="folders, files and globs (`docs/**/*.md`)")
    skip_ignored: bool = Field(
        default=True,
        description="leave out workspaces, virtual environments, node_modules, caches, and files that a .gitignore "
        "within a folder excludes; false reads them too",
    )

    def files(self) -> Iterator[SourceFile]:
        """Every file meant by `paths`. Raises DataError naming what matches nothing."""
        if not self.paths:
            raise DataError('ingest.sources: `files` needs paths, e.g. paths = ["docs/**/*.md"].')
        yield from discover.find(self.paths, self.skip_ignored)

    def open(self, file: SourceFile) -> AbstractContextManager[BufferedReader]:
        """The file, if it is a regular one. Raises Unreadable. Formats that hold it whole bound its size."""
        return open_regular(Path(file.location))
