"""Parquet -> one document per row, read row group by row group.

in:  a table with a string column
out: the text of each row at its row number (from 1); damage to a row group affects that group only
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from groundup.text.ingest.formats.decompress import RATIO_FLOOR
from groundup.text.ingest.formats.plain import document
from groundup.text.ingest.formats.rows import (
    conversation_text,
    layout_columns,
    missing_text,
    to_strings,
)
from groundup.text.ingest.types import ExtractedText, ReadIssue, ReadOptions, Row

_BATCH_ROWS = 64
_DAMAGED = (pa.ArrowException, OSError, ValueError)


def read(
    path: str, file: BinaryIO, options: ReadOptions, skip: int = 0
) -> Iterator[ExtractedText | ReadIssue]:
    """A document for each row after the first `skip`; only the configured columns are read."""
    try:
        table = pq.ParquetFile(file, buffer_size=1 << 20)
    except _DAMAGED as error:
        yield _damaged(error)
        return
    columns = {
        name: key for name, key in options.fields.items() if _field(table.schema_arrow, key) is not None
    }
    layout = layout_columns(table.schema_arrow.names, options)
    columns |= {name: name for name in layout if name not in columns}
    refused = None if layout else _refused(table, columns, options)
    if refused:
        yield refused
        return
    if not table.metadata.num_rows:
        yield ReadIssue("rejected", "empty")
    rows_before = 0
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if rows_before + rows > skip:
            yield from _group(table, group, columns, options, rows_before, max(0, skip - rows_before))
        rows_before += rows


def rows(path: str, file: BinaryIO, options: ReadOptions, skip: int = 0) -> Iterator[Row | ReadIssue]:
    """Each row with all its columns after the first `skip`."""
    try:
        table = pq.ParquetFile(file, buffer_size=1 << 20)
    except _DAMAGED as error:
        yield _damaged(error)
        return
    if not table.metadata.num_rows:
        yield ReadIssue("rejected", "empty")
    number = 0
    for group in range(table.num_row_groups):
        end = number + table.metadata.row_group(group).num_rows
        bomb = _bomb(table, group, options)
        if bomb:
            yield bomb
        elif end > skip:
            try:
                for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group]):
                    for value in batch.to_pylist():
                        number += 1
                        if number > skip:
                            yield Row(value, str(number))
            except _DAMAGED as error:
                yield _damaged(error, f"{number + 1}-{end}")
        number = end


def _group(
    table: Any, group: int, columns: dict[str, str], options: ReadOptions, rows_before: int, skip: int
) -> Iterator[ExtractedText | ReadIssue]:
    """Documents of one row group without its first `skip` rows; `rows_before` is the row offset of the group."""
    bomb = _bomb(table, group, options)
    if bomb:
        yield bomb
        return
    at = 0
    try:
        for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=sorted(columns.values())):
            values = {name: _values(batch, key) for name, key in columns.items()}
            for row in range(max(0, skip - at), batch.num_rows):
                record = {name: column[row] for name, column in values.items()}
                yield from _row(record, str(rows_before + at + row + 1), options)
            at += batch.num_rows
    except _DAMAGED as error:
        yield _damaged(
            error, f"{rows_before + at + 1}-{rows_before + table.metadata.row_group(group).num_rows}"
        )


def _row(record: dict[str, Any], position: str, options: ReadOptions) -> Iterator[ExtractedText | ReadIssue]:
    metadata = {name: value for name, value in record.items() if name in options.fields and name != "text"}
    text = record["text"] if "text" in record else conversation_text(_decoded(record))
    yield from document(text, position, options, **to_strings(metadata))


def _decoded(record: dict[str, Any]) -> dict[str, Any]:
    """The record with top-level bytes as text."""
    return {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for name, value in record.items()
    }


def _refused(table: Any, columns: dict[str, str], options: ReadOptions) -> ReadIssue | None:
    """The issue for a table without the text column, or with one that holds no text."""
    text_column = options.fields["text"]
    if "text" not in columns:
        detail = missing_text(table.schema_arrow.names, options)[:300]
        return ReadIssue("rejected", "no_text_field", detail=detail)
    kind = _field(table.schema_arrow, text_column)
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary,
                                         pa.types.is_large_binary)):  # fmt: skip
        return None
    return ReadIssue(
        "rejected", "no_text_field", detail=f"column {text_column!r} holds {kind}, not text"[:300]
    )


def _bomb(table: Any, group: int, options: ReadOptions) -> ReadIssue | None:
    group_metadata = table.metadata.row_group(group)
    chunks = [group_metadata.column(number) for number in range(group_metadata.num_columns)]
    packed = sum(chunk.total_compressed_size for chunk in chunks)
    unpacked = sum(chunk.total_uncompressed_size for chunk in chunks)
    limit = max(RATIO_FLOOR, int(packed * options.max_expansion))
    if unpacked <= limit:
        return None
    return ReadIssue("rejected", "expands_too_much", f"group {group + 1}", unpacked, limit, "parquet")


def _field(schema: Any, key: str) -> Any:
    """Type of a column or of a nested field `a.b`; None if it is missing."""
    if schema.get_field_index(key) >= 0:
        return schema.field(key).type
    kind: Any = pa.struct(list(schema))
    for part in key.split("."):
        if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
            return None
        kind = kind.field(part).type
    return kind


def _values(batch: Any, key: str) -> list[Any]:
    """Values of a column; strings as bytes, because Arrow doesn't check that they are UTF-8."""
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
    return ReadIssue("rejected", "damaged_parquet", position, detail=f"{type(error).__name__}: {error}"[:300])
