"""Streaming access to Parquet folders: columns of all rows, selected rows, reproducible samples.

in:  a folder of shards
out: tables of bounded size; rows by id; ids with the lowest keys
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from groundup.core.rng import derive_seed
from groundup.text.documents import shards, strings
from groundup.text.segment import hash_ranges, mix

ROWS = 16384
"""Rows of a table without texts."""


def tables(path: Path, columns: list[str] | None = None, rows: int = ROWS) -> Iterator[pa.Table]:
    """All rows of a file, or of a folder's shards, in order. A missing path has no rows."""
    for shard in shards(path) if path.is_dir() else [path] * path.exists():
        with pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(batch_size=rows, columns=columns):
                yield pa.Table.from_batches([batch])


def groups(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """All rows with their texts, one row group at a time."""
    for shard in shards(path):
        with pq.ParquetFile(shard) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=columns)


def rows_with(path: Path, ids: Collection[str], columns: list[str] | None = None,
              key: str = "id") -> Iterator[dict[str, Any]]:  # fmt: skip
    """Rows whose `key` is one of `ids`. Other columns are read only in row groups with a match."""
    wanted = pa.array(sorted(ids), pa.string())
    for shard in shards(path) if path.is_dir() else [path] * path.exists():
        with pq.ParquetFile(shard) as file:
            for group in range(file.num_row_groups):
                hit = pc.is_in(file.read_row_group(group, columns=[key]).column(key), value_set=wanted)
                if pc.any(hit).as_py():
                    yield from file.read_row_group(group, columns=columns).filter(hit).to_pylist()


def ids_like(rows: Iterator[pa.Table], prefix: str, limit: int) -> list[str]:
    """The first ids that begin with `prefix`, at most `limit`."""
    ids: dict[str, None] = {}
    for table in rows:
        hit = pc.starts_with(table.column("id"), pattern=prefix)
        ids |= dict.fromkeys(strings(table.filter(hit), "id"))
        if len(ids) >= limit:
            break
    return list(ids)[:limit]


def random_keys(ids: Sequence[str], seed: int) -> NDArray[np.uint64]:
    """[rows]: a pseudo-random number per id; the same in every run."""
    encoded = [id.encode() for id in ids]
    sizes = np.array([len(one) for one in encoded], np.int64)
    ends = np.cumsum(sizes)
    hashes = hash_ranges(np.frombuffer(b"".join(encoded), np.uint8), ends - sizes, ends)
    return mix(hashes ^ np.uint64(derive_seed("inspect", seed)))


class BottomK:
    """Bottom-k sample: the `most` ids with the lowest keys; ties in the order of ids."""

    def __init__(self, most: int) -> None:
        self.most, self.seen = most, 0
        self._keys: NDArray[Any] = np.zeros(0)
        self._ids: NDArray[np.str_] = np.zeros(0, str)

    def offer(self, keys: NDArray[Any], ids: NDArray[np.str_]) -> None:
        """Add rows."""
        self.seen += len(keys)
        if len(self._keys) == self.most:
            low = keys <= self._keys[-1]
            keys, ids = keys[low], ids[low]
        if len(keys):
            keys = np.concatenate([self._keys.astype(keys.dtype), keys])
            ids = np.concatenate([self._ids, ids])
            best = np.lexsort((ids, keys))[: self.most]
            self._keys, self._ids = keys[best], ids[best]

    def take(self, other: "BottomK") -> None:
        """Merge another sample."""
        seen = self.seen + other.seen
        self.offer(other._keys, other._ids)
        self.seen = seen

    def ids(self) -> tuple[str, ...]:
        """Ids in ascending order of their keys, each once."""
        return tuple(dict.fromkeys(self._ids.tolist()))
