"""The base of all datasets: a `[[data]]` table of the blueprint.

in:  the user's files, or the documents of the corpus
out: records, each with an id, a group that decides its split, and the name of its table; a rejects-log entry for each
     row that can't be used
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.core.records import Record
from groundup.core.registry import plugin_name
from groundup.evaluate.alignment_data import RecordKind
from groundup.evaluate.examples import HELD_OUT_SHARE
from groundup.text.documents import RejectsLogEntry
from groundup.text.ingest.types import SourceFile

OnReject = Callable[[RejectsLogEntry], None]


class Dataset(Recipe):
    """Base of the datasets, with the settings that all of them have.

    provides: the kinds of records that it can give. made: whether its records are made from documents, which are
    deduplicated already, and stay as they are.
    """

    provides: ClassVar[frozenset[RecordKind]]
    made: ClassVar[bool] = False
    not_identity: ClassVar[frozenset[str]] = frozenset({"paths"})

    name: str = Field(
        default="",
        pattern=r"^[\w.-]*$",
        description="name of the table, used in `data` of the align steps; empty = the plugin's name",
    )
    held_out: float = Field(
        default=HELD_OUT_SHARE,
        ge=0,
        le=1,
        description="fraction of the prompts that is held out of training; 1 = all, 0 = none",
    )
    cap: int = Field(
        default=0, ge=0, description="maximum training records, chosen by a hash of their ids; 0 = all"
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        description="copies of each training record: 2 = each twice, 0.5 = half of them, chosen by a hash",
    )

    def label(self) -> str:
        """The name of the table."""
        return self.name or plugin_name(self)

    def files(self) -> Iterator[SourceFile]:
        """The files that it reads; none where its records are made from documents."""
        yield from ()

    @abstractmethod
    def records(self, documents: Path | None, on_reject: OnReject) -> Iterator[Record]:
        """The records with the split left open, and for each row that can't be used a call of `on_reject`.

        documents: the corpus's artifact.
        """
