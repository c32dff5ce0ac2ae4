"""What a source of files in any format can be told, and how it reads one of them.

in:  the name and the bytes of a file
out: the texts in it, by the format that its bytes show
"""

from collections.abc import Iterator
from typing import BinaryIO

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from groundup.text.ingest.types import ExtractedText, Extractor, ReadIssue, ReadOptions, SourceRecipe

FIELDS = ("text", "path", "licence", "language")
"""What of a document a column of a table, or a field of a JSON line, can hold."""


class ReadingRecipe(SourceRecipe):
    """Base of the sources that find their files somewhere and read whatever format they have."""

    fields: dict[str, str] = Field(
        default={"text": "text"},
        description="which column or JSON field holds a document's text, path, licence, language",
    )
    extractor: Extractor = Field(default="resiliparse", description="how main text is taken from HTML")
    max_file_bytes: int = Field(
        default=256 << 20,
        gt=0,
        description="larger pages, PDFs ... go aside: what is held in memory whole, or fetched first",
    )
    max_line_bytes: int = Field(default=1 << 20, gt=0, description="texts with a longer line go aside")
    max_expansion: float = Field(
        default=200.0, gt=1, description="how many times its size a packed file may unpack to"
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
        """How the formats read this source's files."""
        return ReadOptions(
            self.fields, self.extractor, self.max_file_bytes, self.max_line_bytes, self.max_expansion
        )

    def read(self, path: str, file: BinaryIO, skip: int = 0) -> Iterator[ExtractedText | ReadIssue]:
        """The texts in one file; see `Source.read`."""
        from groundup.text.ingest.formats.reader import read

        return read(path, file, self.options(), skip)
