"""Base recipe of sources that read files of any format.

in:  name and bytes of a file
out: its texts, read by the format detected from its bytes
"""

from collections.abc import Iterator
from typing import BinaryIO

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from groundup.text.ingest.types import (
    DEFAULT_SEPARATOR,
    ExtractedText,
    Extractor,
    ReadIssue,
    ReadOptions,
    SourceRecipe,
)

FIELDS = ("text", "path", "licence", "language")
"""Document fields that a table column or JSON field can provide."""


class ReadingRecipe(SourceRecipe):
    """Settings of sources that list files and read any format."""

    fields: dict[str, str] = Field(
        default={"text": "text"},
        description="column or JSON field for each document field: text, path, licence, language",
    )
    extractor: Extractor = Field(
        default="resiliparse", description="library that extracts the main text of HTML pages"
    )
    max_file_bytes: int = Field(
        default=256 << 20,
        gt=0,
        description=(
            "size limit of files that are held in memory or downloaded first (pages, PDFs ...); larger "
            "ones are rejected"
        ),
    )
    max_line_bytes: int = Field(default=1 << 20, gt=0, description="texts with a longer line are rejected")
    max_expansion: float = Field(
        default=200.0, gt=1, description="maximum ratio of decompressed to compressed size"
    )

    separator: str = Field(
        default=DEFAULT_SEPARATOR,
        description='divides plain text into documents: lines that are only this string, or "blank-lines" or '
        '"headings"; empty = a file is one document',
    )

    @field_validator("fields")
    @classmethod
    def _known_fields(cls, value: dict[str, str]) -> dict[str, str]:
        for key in value:
            if key not in FIELDS:
                known = {"key": key, "known": ", ".join(FIELDS)}
                raise PydanticCustomError("field", "`{key}` is nothing a document has; known: {known}", known)
        return {"text": "text"} | value

    def options(self) -> ReadOptions:
        """Read options for the formats."""
        return ReadOptions(
            self.fields,
            self.extractor,
            self.max_file_bytes,
            self.max_line_bytes,
            self.max_expansion,
            self.separator,
        )

    def read(self, path: str, file: BinaryIO, skip: int = 0) -> Iterator[ExtractedText | ReadIssue]:
        """Documents and issues of one file; see `Source.read`."""
        from groundup.text.ingest.formats.reader import read

        return read(path, file, self.options(), skip)
