"""Source: folders, files and globs of text, JSON lines, and either of them in gzip.

in:  `paths`; a folder means every file in it at any depth
out: a document per text file, and per JSON line
"""

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from groundup.core.errors import DataError
from groundup.core.recipe import Recipe
from groundup.text import formats, walk
from groundup.text.sources import Note, SourceFile, Text


class Files(Recipe):
    """The person's own files. Where they lie is no part of what they are: the contents are fingerprinted."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"paths"})

    paths: tuple[str, ...] = Field(default=(), description="folders, files and globs (`docs/**/*.md`)")
    licence: str = Field(default="", description="written into every document")
    text_field: str = Field(default="text", description="the field of a JSON line that holds the text")
    max_file_bytes: int = Field(
        default=256 << 20, gt=0, description="larger files go aside, packed or unpacked"
    )
    max_line_bytes: int = Field(default=1 << 20, gt=0, description="texts with a longer line go aside")
    max_expansion: float = Field(
        default=200.0, gt=1, description="how many times its size a gzip file may unpack to"
    )

    def files(self) -> Iterator[SourceFile]:
        """Every file meant by `paths`. Raises DataError naming what matches nothing."""
        if not self.paths:
            raise DataError('acquire.sources: `files` needs paths, e.g. paths = ["docs/**/*.md"].')
        yield from walk.find(self.paths)

    def read(self, path: str, data: bytes) -> Iterator[Text | Note]:
        """The texts in one file."""
        limits = formats.Limits(self.max_file_bytes, self.max_line_bytes, self.max_expansion)
        yield from formats.texts(path, data, self.text_field, limits)
