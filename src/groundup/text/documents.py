"""Documents and rejects log on disk: folders of Parquet shards, written in one pass and read by row group.

in:  documents (or tables of them), rejects-log entries
out: documents/00000.parquet ..., rejects/00000.parquet ...; equal rows give equal bytes
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.core.atomic_io import atomic_replace, temp_path
from groundup.core.records import Document

DOCUMENTS = "documents"
REJECTS = "rejects"
DOCUMENT_METRICS = "document_metrics"

DOCUMENT_SCHEMA = pa.schema([pa.field(name, pa.string()) for name in Document.__dataclass_fields__])
ROW_GROUP_ROWS = 1024
ROW_GROUP_BYTES = 16 << 20
"""Maximum size of a row group (a single larger row excepted), far below Arrow's 2 GiB limit for string arrays."""

Outcome = Literal["dropped", "changed", "rejected"]
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class RejectsLogEntry:
    """Reason why one document or file was rejected, dropped or changed.

    `outcome`: rejected = it could not be read; dropped = a curation step removed it; changed = kept with changes.
    `reason` is a name (`too_few_words`); `value` and `threshold` are the numbers that were compared, if any.
    """

    id: str
    source: str
    path: str
    step: str
    outcome: Outcome
    reason: str
    value: float | None = None
    threshold: float | None = None
    detail: str = ""


_NUMBERS = ("value", "threshold")
_OF_FEW_VALUES = ("source", "licence", "language", "step", "outcome", "reason")
REJECTS_SCHEMA = pa.schema(
    [
        pa.field(name, pa.float64()) if name in _NUMBERS else pa.field(name, pa.string())
        for name in RejectsLogEntry.__dataclass_fields__
    ]
)


class TableWriter(Generic[Row]):
    """Writes records of one type to a Parquet file. A context manager; the file appears atomically on exit.

    Without any row an empty file is written. An exception inside the context discards the file.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema, self.rows, self.bytes = path, schema, 0, 0
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._part = temp_path(path)
        few: Any = [
            name for name in _OF_FEW_VALUES if name in schema.names
        ]  # texts are neither sorted nor repeated
        self._writer: Any = pq.ParquetWriter(
            self._part, schema, compression="zstd", version="2.6", use_dictionary=few, write_statistics=False
        )

    def write(self, rows: pa.Table | Iterable[Row]) -> None:
        """Append a table with this schema, or an iterable of records."""
        table = rows if isinstance(rows, pa.Table) else self._table(rows)
        if not table.num_rows:
            return
        self.rows += table.num_rows
        self.bytes += table.nbytes
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        self._waiting_bytes += table.nbytes
        if self._waiting_rows >= ROW_GROUP_ROWS or self._waiting_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write the remaining rows and the footer, then move the file into place durably."""
        self._flush()
        self._writer.close()
        atomic_replace(self._part, self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._writer.close()
            self._part.unlink()

    def _table(self, rows: Iterable[Row]) -> pa.Table:
        listed = list(rows)
        columns = {name: [getattr(row, name) for row in listed] for name in self.schema.names}
        for name in set(_NUMBERS) & set(columns):  # Arrow refuses integers above 2^53 for a float
            columns[name] = [None if number is None else float(number) for number in columns[name]]
        return pa.table(columns, schema=self.schema)

    def _flush(self) -> None:
        if self._waiting:
            table = pa.concat_tables(self._waiting).combine_chunks()
            for group in _groups(table):
                self._writer.write_table(group, row_group_size=group.num_rows)
            self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0


class DocumentWriter(TableWriter[Document]):
    """Writes documents; `write` takes a table or an iterable of `Document`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, DOCUMENT_SCHEMA)


class RejectsLogWriter(TableWriter[RejectsLogEntry]):
    """Writes the rejects log; `write` takes a table or an iterable of `RejectsLogEntry`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, REJECTS_SCHEMA)


def _groups(table: pa.Table) -> Iterator[pa.Table]:
    """Slices of consecutive rows that fit a row group; a row larger than a group gets its own."""
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    lengths = [pc.fill_null(pc.binary_length(table.column(name)), 0).to_numpy() for name in texts]
    ends = np.cumsum(np.sum(lengths, axis=0, dtype=np.int64))
    start = 0
    while start < table.num_rows:
        before = ends[start - 1] if start else 0
        fitting = int(np.searchsorted(ends, before + ROW_GROUP_BYTES, side="right"))
        end = min(max(fitting, start + 1), start + ROW_GROUP_ROWS)
        yield table.slice(start, end - start)
        start = end


def shards(folder: Path) -> list[Path]:
    """The Parquet files of a folder in order."""
    return sorted(folder.glob("*.parquet"))


def iter_tables(artifact_path: Path, folder: str = DOCUMENTS) -> Iterator[pa.Table]:
    """Row groups of an artifact's documents (or rejects log), shard by shard."""
    for shard in shards(artifact_path / folder):
        yield from iter_groups(shard)


def iter_groups(shard: Path) -> Iterator[pa.Table]:
    """Row groups of one Parquet file; at most one in memory."""
    with pq.ParquetFile(shard) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def read_rows(folder: Path, places: Iterable[tuple[str, int, int]]) -> Iterator[dict[str, Any]]:
    """Rows at `places` (shard name, first row, number of rows); reads only the row groups that contain them."""
    for name, first, count in places:
        at = 0
        for table in iter_groups(folder / name):
            low, high = max(first - at, 0), min(first + count - at, table.num_rows)
            if low < high:
                yield from table.slice(low, high - low).to_pylist()
            at += table.num_rows


def strings(table: pa.Table, column: str) -> list[str]:
    """A string column as a list."""
    values: list[Any] = table.column(column).to_pylist()
    return values


def count_rows(artifact_path: Path, folder: str = DOCUMENTS) -> int:
    """Number of rows of an artifact's documents (or rejects log), from the shards' footers."""
    return sum(pq.read_metadata(shard).num_rows for shard in shards(artifact_path / folder))


def read_documents(artifact_path: Path) -> Iterator[Document]:
    """Documents of an artifact in file order; at most one row group in memory."""
    for table in iter_tables(artifact_path):
        columns = [strings(table, name) for name in DOCUMENT_SCHEMA.names]
        for values in zip(*columns, strict=True):
            yield Document(*values)


def read_rejects_log(artifact_path: Path) -> Iterator[RejectsLogEntry]:
    """Rejects-log entries of an artifact in order."""
    for table in iter_tables(artifact_path, REJECTS):
        for row in table.to_pylist():
            yield RejectsLogEntry(**row)


def spell_reasons(reasons: Counter[str], most: int = 5) -> str:
    """Reason counts for people, most frequent first: `empty (3), binary (1)`."""
    return ", ".join(f"{reason} ({number})" for reason, number in reasons.most_common(most))
