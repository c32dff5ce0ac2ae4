"""Texts of evaluation sets, for decontamination.

in:  paths of JSON lines, also compressed (gz, zst, bz2, xz), or Parquet
out: per record its name (`file#line`) and every string in it, at any depth
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from groundup.core.digests import UNCACHED, DigestCache
from groundup.core.errors import DataError
from groundup.core.jsonl import parse_lines
from groundup.text.ingest import discover
from groundup.text.ingest.formats.decompress import DecompressedFile, compression
from groundup.text.ingest.safe_open import Unreadable, hash_regular
from groundup.text.ingest.types import SourceFile

_MOST_BYTES = 1 << 40
_COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_HEAD, _MAX_EXPANSION = 64, 1000.0
_LINES = (".jsonl", ".ndjson")


def evaluation_items(paths: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """(name, texts) of every record. Raises DataError with file and line of an unreadable record."""
    for file in _files(paths):
        path = Path(file.location)
        kind = Path(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix
        if kind == ".parquet":
            records: Iterator[Any] = (
                row for batch in pq.ParquetFile(path).iter_batches() for row in batch.to_pylist()
            )
        elif kind in _LINES:
            records = _json_lines(path)
        else:
            raise DataError(
                f"curate.decontaminate.paths: {path} is neither JSON lines (.jsonl or .ndjson, also "
                "with .gz, .zst, .bz2 or .xz) nor Parquet"
            )
        for number, record in enumerate(records, 1):
            yield f"{file.path}#{number}", list(_texts(record))


def item_digest(paths: Sequence[str], digests: DigestCache = UNCACHED) -> list[list[str]]:
    """Names and SHA-256 digests of the evaluation sets, for the fingerprint."""
    try:
        return [[file.path, _sha256(Path(file.location), digests)] for file in _files(paths)]
    except Unreadable as error:
        raise DataError(f"curate.decontaminate.paths: {error.reason} {error.detail}") from None


def _sha256(path: Path, digests: DigestCache) -> str:
    return digests.of_file(path, lambda: hash_regular(path, _MOST_BYTES))


def _files(paths: Sequence[str]) -> list[SourceFile]:
    files = list(discover.find(paths)) if paths else []
    for file in files:
        if file.reject_reason:
            raise DataError(
                f"curate.decontaminate.paths: {file.path}: {file.reject_reason} {file.detail}".rstrip()
            )
    return files


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        kind = compression(file.read(_HEAD))
        file.seek(0)
        content = DecompressedFile(file, kind, _MAX_EXPANSION) if kind else None
        try:
            yield from parse_lines(io.BufferedReader(content) if content else file)
        except ValueError as error:
            raise DataError(f"curate.decontaminate.paths: {path}, {error}") from None
        if content and content.issues:
            raise DataError(f"curate.decontaminate.paths: {path} is damaged: {content.issues[0].detail}")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
