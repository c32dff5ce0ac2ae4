"""The user's files -> rows: the base of the datasets that read files.

in:  paths of JSON lines, JSON arrays or Parquet, also compressed; how our field names map to the file's columns
out: rows with file and line; a rejects-log entry for each row that can't be used, with what is wrong
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

from pydantic import Field

from groundup.align.data.chat_messages import RowError
from groundup.align.data.dataset import Dataset, OnReject
from groundup.core.errors import DataError
from groundup.core.records import Record
from groundup.text.documents import Outcome, RejectsLogEntry
from groundup.text.ingest import discover
from groundup.text.ingest.formats.reader import read_rows
from groundup.text.ingest.formats.rows import get_field
from groundup.text.ingest.safe_open import Unreadable, open_regular
from groundup.text.ingest.types import ReadIssue, ReadOptions, Row, SourceFile


@dataclass(frozen=True)
class RowContext:
    """What a row's records need: the name of its table, its place, and how to log a change of it."""

    source: str
    place: str
    """file and line; the id of the row's first record"""
    on_change: Callable[[str, str], None]
    """reason and detail of something that is left out of a row that is used"""


class FileDataset(Dataset):
    """Base of the datasets that read files."""

    not_identity: ClassVar[frozenset[str]] = frozenset({"paths"})

    paths: tuple[str, ...] = Field(
        default=(),
        description="files, folders and globs (`chats/*.jsonl`) of JSON lines, JSON arrays or Parquet",
    )
    format: str = Field(default="", description="layout of the rows; empty = recognised by their keys")
    held_out: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="fraction of the prompts that is held out of training; 1 = all, 0 = none",
    )
    fields: dict[str, str] = Field(
        default={}, description='columns that have other names, as { our_name = "their column" }'
    )
    duplicates: Literal["near", "exact", "keep"] = Field(
        default="near",
        description="rows that are dropped: equal ones and near-duplicates, only equal ones, or none",
    )

    def files(self) -> Iterator[SourceFile]:
        """Every file that matches `paths`. Raises DataError for a path that matches nothing."""
        if not self.paths:
            raise DataError(f'[[data]] `{self.label()}` needs paths, e.g. paths = ["chats/*.jsonl"]')
        yield from discover.find(self.paths, skip_ignored=True)

    def open(self, file: SourceFile) -> AbstractContextManager[BinaryIO]:
        """The file, if it is a regular one. Raises Unreadable."""
        return open_regular(Path(file.location))

    @abstractmethod
    def row_records(self, row: Mapping[str, Any], context: RowContext) -> list[Record]:
        """The records of one row, their groups left open. Raises RowError."""

    def records(self, documents: Path | None, on_reject: OnReject) -> Iterator[Record]:
        """See `Dataset`."""
        for file in self.files():
            for item in self._rows(file):
                yield from self._of_row(file.path, item, on_reject)

    def _rows(self, file: SourceFile) -> Iterator[Row | ReadIssue]:
        if file.reject_reason:
            yield ReadIssue("rejected", file.reject_reason, detail=file.detail)
            return
        try:
            with self.open(file) as opened:
                yield from read_rows(file.path, opened, ReadOptions())
        except Unreadable as error:
            yield ReadIssue("rejected", error.reason, detail=error.detail)

    def _of_row(self, path: str, item: Row | ReadIssue, on_reject: OnReject) -> list[Record]:
        """The records of a row; none, and an entry in the rejects log, where it can't be used."""

        def log(outcome: Outcome, reason: str, detail: str) -> None:
            place = f"{path}, line {item.position}" if item.position else path
            entry_id = f"{self.label()}/{path}#{item.position}"
            on_reject(
                RejectsLogEntry(
                    entry_id, self.label(), path, "data", outcome, reason, detail=f"{place}: {detail}"
                )
            )

        if isinstance(item, ReadIssue):
            log(item.outcome, item.reason, item.detail or item.reason.replace("_", " "))
            return []
        context = RowContext(
            self.label(),
            f"{self.label()}/{path}#{item.position}",
            lambda reason, detail: log("changed", reason, detail),
        )
        try:
            if not isinstance(item.value, dict):
                raise RowError("not_an_object", f"expected a JSON object, got {type(item.value).__name__}")
            return self.row_records(renamed(item.value, self.fields), context)
        except RowError as error:
            log("rejected", error.reason, str(error))
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
            log("rejected", "bad_row", f"{type(error).__name__}: {error}"[:300])
        return []


def renamed(row: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    """The row with the columns that `fields` names under our names. Raises RowError where one is missing."""
    taken = {}
    for name, column in fields.items():
        taken[name] = get_field(row, column)
        if taken[name] is None:
            raise RowError(
                "no_such_column", f"there is no column `{column}` (fields.{name}); it has {', '.join(row)}"
            )
    return {name: value for name, value in row.items() if name not in fields.values()} | taken
