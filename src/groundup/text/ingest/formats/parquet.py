"""Parquet -> a document per row, one row group after another.

in:  a table with a column of strings
out: the text of each row, at the position of its number (from 1); a row group that is damaged is lost alone
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.text.ingest.formats.decompress import RATIO_FLOOR
from groundup.text.ingest.formats.jsonl import spelled
from groundup.text.ingest.formats.plain import document
from groundup.text.ingest.types import ExtractedText, Options, ReadIssue

_BATCH_ROWS = 64
_DAMAGED = (pa.ArrowException, OSError, ValueError)


def read(path: str, file: BinaryIO, options: Options, skip: int = 0) -> Iterator[ExtractedText | ReadIssue]:
    """A document for each row behind the first `skip`; other columns than the wanted ones aren't read."""
    try:
        table = pq.ParquetFile(file, buffer_size=1 << 20)
    except _DAMAGED as error:
        yield _damaged(error)
        return
    columns = {
        name: key for name, key in options.fields.items() if _field(table.schema_arrow, key) is not None
    }
    refused = _refused(table, columns, options)
    if refused:
        yield refused
        return
    if not table.metadata.num_rows:
        yield ReadIssue("aside", "empty")
    first = 0
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if first + rows > skip:
            yield from _group(table, group, columns, options, first, max(0, skip - first))
        first += rows


def _group(
    table: Any, group: int, columns: dict[str, str], options: Options, first: int, skip: int
) -> Iterator[ExtractedText | ReadIssue]:
    """The rows of one row group but the first `skip`; `first` rows stand before it in the file."""
    bomb = _bomb(table, group, options)
    if bomb:
        yield bomb
        return
    at = 0
    try:
        for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=sorted(columns.values())):
            values = {name: _values(batch, key) for name, key in columns.items()}
            for row in range(max(0, skip - at), batch.num_rows):
                about = {name: column[row] for name, column in values.items() if name != "text"}
                position = str(first + at + row + 1)
                yield from document(values["text"][row], position, options, **spelled(about))
            at += batch.num_rows
    except _DAMAGED as error:
        yield _damaged(error, f"{first + at + 1}-{first + table.metadata.row_group(group).num_rows}")


def _refused(table: Any, columns: dict[str, str], options: Options) -> ReadIssue | None:
    """Why nothing of a table can be used: not the column that should hold the text, or not as text."""
    wanted = options.fields["text"]
    if "text" not in columns:
        detail = f"no column {wanted!r}; there are: {', '.join(table.schema_arrow.names)}"
        return ReadIssue("aside", "no_text_field", detail=detail[:300])
    kind = _field(table.schema_arrow, wanted)
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary,
                                         pa.types.is_large_binary)):  # fmt: skip
        return None
    return ReadIssue("aside", "no_text_field", detail=f"column {wanted!r} holds {kind}, not text"[:300])


def _bomb(table: Any, group: int, options: Options) -> ReadIssue | None:
    about = table.metadata.row_group(group)
    chunks = [about.column(number) for number in range(about.num_columns)]
    packed = sum(chunk.total_compressed_size for chunk in chunks)
    unpacked = sum(chunk.total_uncompressed_size for chunk in chunks)
    limit = max(RATIO_FLOOR, int(packed * options.expansion))
    if unpacked <= limit:
        return None
    return ReadIssue("aside", "expands_too_much", f"group {group + 1}", unpacked, limit, "parquet")


def _field(schema: Any, key: str) -> Any:
    """The type of a column, or of `a.b` within one; None if there is none."""
    if schema.get_field_index(key) >= 0:
        return schema.field(key).type
    kind: Any = pa.struct(list(schema))
    for part in key.split("."):
        if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
            return None
        kind = kind.field(part).type
    return kind


def _values(batch: Any, key: str) -> list[Any]:
    """A column as a list; strings as bytes, since nobody has checked that they are UTF-8."""
    if key in batch.schema.names:
        column = batch.column(key)
    else:
        top, *inner = key.split(".")
        column = pc.struct_field(batch.column(top), inner)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    return list(column.to_pylist())


def _damaged(error: Exception, position: str = "") -> ReadIssue:
    return ReadIssue("aside", "damaged_parquet", position, detail=f"{type(error).__name__}: {error}"[:300])
