"""Documents and the ledger on disk: Parquet, written in one pass, read row group by row group.

in:  documents (or tables of them), and what was decided about each
out: documents.parquet and ledger.parquet; the same rows give the same bytes
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

from groundup.core.records import Document

DOCUMENTS_FILE = "documents.parquet"
LEDGER_FILE = "ledger.parquet"

DOCUMENT_SCHEMA = pa.schema([pa.field(name, pa.string()) for name in Document.__dataclass_fields__])
ROW_GROUP_ROWS = 1024
ROW_GROUP_BYTES = 16 << 20
"""The most a row group holds, unless one row is larger: far below Arrow's 2 GiB for the strings of an array."""

Fate = Literal["dropped", "changed", "aside"]
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """Why one document (or file) is gone, or not what it was.

    `fate`: dropped = a rule removed it; changed = kept, but not as it came; aside = it could not be read.
    `reason` is what happened (`too_few_words`); `value` and `threshold` are the numbers behind it, if any.
    """

    id: str
    source: str
    path: str
    step: str
    fate: Fate
    reason: str
    value: float | None = None
    threshold: float | None = None
    detail: str = ""


_NUMBERS = ("value", "threshold")
LEDGER_SCHEMA = pa.schema(
    [
        pa.field(name, pa.float64()) if name in _NUMBERS else pa.field(name, pa.string())
        for name in LedgerEntry.__dataclass_fields__
    ]
)


class TableWriter(Generic[Row]):
    """Rows of one record type -> one Parquet file. A context manager; an old file at `path` is replaced."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema, self.rows = path, schema, 0
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._writer: Any = pq.ParquetWriter(path, schema, compression="zstd", version="2.6")

    def write(self, rows: pa.Table | Iterable[Row]) -> None:
        """Append a table of this schema, or any number of records."""
        table = rows if isinstance(rows, pa.Table) else self._table(rows)
        if not table.num_rows:
            return
        self.rows += table.num_rows
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        self._waiting_bytes += table.nbytes
        if self._waiting_rows >= ROW_GROUP_ROWS or self._waiting_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what still waits and the file's footer."""
        self._flush()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _table(self, rows: Iterable[Row]) -> pa.Table:
        listed = list(rows)
        columns = {name: [getattr(row, name) for row in listed] for name in self.schema.names}
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


class LedgerWriter(TableWriter[LedgerEntry]):
    """Writes the ledger; `write` takes a table or an iterable of `LedgerEntry`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, LEDGER_SCHEMA)


def _groups(table: pa.Table) -> Iterator[pa.Table]:
    """Slices of consecutive rows that each fit a row group; a row larger than a group gets its own."""
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


def iter_tables(path: Path) -> Iterator[pa.Table]:
    """The row groups of a Parquet file in file order; for a folder, of its `documents.parquet`."""
    with pq.ParquetFile(path / DOCUMENTS_FILE if path.is_dir() else path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def strings(table: pa.Table, column: str) -> list[str]:
    """A column of strings as a list."""
    values: list[Any] = table.column(column).to_pylist()
    return values


def count_rows(path: Path) -> int:
    """Rows of a Parquet file (or of a folder's `documents.parquet`), from its footer alone."""
    rows: int = pq.read_metadata(path / DOCUMENTS_FILE if path.is_dir() else path).num_rows
    return rows


def read_documents(artifact_path: Path) -> Iterator[Document]:
    """The documents of an artifact, in file order; no more than one row group in memory."""
    for table in iter_tables(artifact_path):
        columns = [strings(table, name) for name in DOCUMENT_SCHEMA.names]
        for values in zip(*columns, strict=True):
            yield Document(*values)


def read_ledger(artifact_path: Path) -> Iterator[LedgerEntry]:
    """The ledger of an artifact, in the order in which things happened."""
    for table in iter_tables(artifact_path / LEDGER_FILE):
        for row in table.to_pylist():
            yield LedgerEntry(**row)


def spell_reasons(reasons: Counter[str], most: int = 5) -> str:
    """Reasons as people read them, the most frequent first: `empty (3), binary (1)`."""
    return ", ".join(f"{reason} ({number})" for reason, number in reasons.most_common(most))
