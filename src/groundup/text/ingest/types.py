"""Types shared by the ingest stage: source files, extracted texts, rows, issues, read options, `Source` protocol."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Literal, Protocol

from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.text.documents import Outcome

DEFAULT_SEPARATOR = "<|endoftext|>"
Extractor = Literal["resiliparse", "trafilatura"]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file listed by a source. `path`, relative to the source's root, is part of ids and of the rejects log.

    `location` is the local path, or whatever the source's `open` takes. `bytes` is the size. A file that can't be read
    has a `reject_reason` and isn't opened. `digest` identifies the content where that is known without reading it (git
    blob, object version); "" = the content is hashed.
    """

    path: str
    location: Path | str
    reject_reason: str = ""
    detail: str = ""
    bytes: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class ExtractedText:
    """A document extracted from a file. `position` identifies it in the file; `path` (or URL) replaces the file's.

    `licence` and `language`, where the file states them, replace the source's licence and the empty language.
    """

    text: str
    position: str = ""
    path: str = ""
    licence: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class ReadIssue:
    """Rejects-log entry about a file, or about the record at `position` in it."""

    outcome: Outcome
    reason: str
    position: str = ""
    value: float | None = None
    threshold: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table or a JSON value as it is. `issue`: what was repaired to decode it."""

    value: Any
    position: str
    issue: ReadIssue | None = None


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Reader settings of a source.

    `fields` maps document fields (text, path, licence, language) to columns of a table or keys of a JSON object.
    `max_file_bytes` limits files that are read into memory whole, before and after decompression, and single records
    of streamed files. `max_expansion` limits decompressed size as a multiple of the compressed size. `separator`
    divides plain text into documents (see formats/separate.py).
    """

    fields: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({"text": "text"}))
    extractor: Extractor = "resiliparse"
    max_file_bytes: int = 256 << 20
    max_line_bytes: int = 1 << 20
    max_expansion: float = 200.0
    separator: str = DEFAULT_SEPARATOR


class SourceRecipe(Recipe):
    """Settings common to all sources. They don't change what is read."""

    not_identity = frozenset({"weight", "max_epochs"})

    name: str = Field(
        default="",
        pattern=r"^[\w.-]*$",
        description="name of the source in counts, the rejects log and document ids; empty = the plugin's name",
    )
    licence: str = Field(default="", description="licence recorded with every document")
    weight: float | None = Field(
        default=None,
        gt=0,
        description="sampling weight relative to other sources; none = all documents",
    )
    max_epochs: float = Field(
        default=1.0, gt=0, description="maximum repetitions of a document to reach the weight"
    )


class FileOpener(Protocol):
    """What opens listed files."""

    def open(self, file: SourceFile) -> AbstractContextManager[BinaryIO]:
        """The file's bytes, seekable. Raises Unreadable (text/ingest/safe_open.py), also while reading."""


class Source(Protocol):
    """Protocol of a source: lists files, opens them and extracts their documents."""

    @property
    def name(self) -> str:
        """Name of the source; "" = the plugin's name."""

    @property
    def licence(self) -> str:
        """Licence of every document of this source, "" if unknown."""

    @property
    def weight(self) -> float | None:
        """Sampling weight relative to other sources; None = all documents."""

    @property
    def max_epochs(self) -> float:
        """Maximum repetitions of a document to reach the weight."""

    def files(self) -> Iterator[SourceFile]:
        """All files in a stable order, including unreadable ones. Raises DataError if there are none."""

    def open(self, file: SourceFile) -> AbstractContextManager[BinaryIO]:
        """The file's bytes, seekable. Raises Unreadable (text/ingest/safe_open.py), also while reading."""

    def read(self, path: str, file: BinaryIO, skip: int = 0) -> Iterator[ExtractedText | ReadIssue]:
        """Documents and issues of one file. A rejected issue without a position rejects the whole file.

        skip: records at the beginning that were read before an interruption; they are skipped without decoding.
        """
