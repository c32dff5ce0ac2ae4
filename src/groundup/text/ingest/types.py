"""Types shared by the ingest stage: source files, extracted texts, read issues and the `Source` protocol."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Literal, Protocol

from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.text.documents import Outcome

Extractor = Literal["resiliparse", "trafilatura"]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that a source offers. `path` is relative to the source's root and goes into ids and the ledger.

    `location` is where it lies today: a path, or what else the source's `open` understands. `bytes` is its size.
    A file that can't be read has its reason in `aside`, and isn't opened. `digest` names its content where that is
    known without reading it (a git blob, a version on a server); "" = the content is hashed.
    """

    path: str
    location: Path | str
    reject_reason: str = ""
    detail: str = ""
    bytes: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class ExtractedText:
    """A document found in a file. `position` tells it from others in there; `path` (or URL) replaces the file's.

    `licence` and `language`, where the file says them, replace the source's licence and the empty language.
    """

    text: str
    position: str = ""
    path: str = ""
    licence: str = ""
    language: str = ""


@dataclass(frozen=True, slots=True)
class ReadIssue:
    """Something the ledger should say about a file, or about the record at `position` in it."""

    outcome: Outcome
    reason: str
    position: str = ""
    value: float | None = None
    threshold: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Reader settings of a source.

    `fields` maps document fields (text, path, licence, language) to columns of a table or keys of a JSON object.
    `max_file_bytes` limits files that are read into memory whole, before and after decompression, and single records
    of streamed files. `max_expansion` limits decompressed size as a multiple of the compressed size.
    """

    fields: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({"text": "text"}))
    extractor: Extractor = "resiliparse"
    max_file_bytes: int = 256 << 20
    max_line_bytes: int = 1 << 20
    max_expansion: float = 200.0


class SourceRecipe(Recipe):
    """What every source can be told about its documents. None of it changes what is read."""

    not_identity = frozenset({"weight", "max_epochs"})

    name: str = Field(
        default="",
        pattern=r"^[\w.-]*$",
        description="what it is called in counts and the ledger, and part of its documents' ids; none = its kind",
    )
    licence: str = Field(default="", description="written into every document")
    weight: float | None = Field(
        default=None,
        gt=0,
        description="share of the corpus, against other weights; none = as much as there is",
    )
    max_epochs: float = Field(
        default=1.0, gt=0, description="how often a document may be repeated to reach the weight"
    )


class Source(Protocol):
    """Offers files, and knows how to find documents in the bytes of one."""

    @property
    def name(self) -> str:
        """What the source is called; "" = by its kind."""

    @property
    def licence(self) -> str:
        """The licence of every document of this source, "" if unknown."""

    @property
    def weight(self) -> float | None:
        """Its share of the corpus, against other weights; None = as much as there is."""

    @property
    def max_epochs(self) -> float:
        """How often a document may be repeated to reach the weight."""

    def files(self) -> Iterator[SourceFile]:
        """All files in a stable order, also those that can't be read. Raises DataError if there are none."""

    def open(self, file: SourceFile) -> AbstractContextManager[BinaryIO]:
        """The file's bytes, seekable. Raises Unreadable (text/ingest/safe_open.py), also for errors while "
        "it is read."""

    def read(self, path: str, file: BinaryIO, skip: int = 0) -> Iterator[ExtractedText | ReadIssue]:
        """What is in one file. A note with the fate "rejected" and no position says that nothing is.

        skip: records at the beginning that were read before a stop; passed over without being decoded.
        """
