"""Packed sequences of token ids on disk, memory-mapped: [sequences, seq_len + 1], smallest sufficient integer
type.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np


class PackedDataset:
    """Packed sequences of one split. `dataset[indices]` reads them as int64."""

    def __init__(self, path: Path) -> None:
        self._array = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return int(self._array.shape[0])

    @property
    def width(self) -> int:
        """Ids per packed sequence: seq_len + 1."""
        return int(self._array.shape[1])

    def __getitem__(self, indices: np.ndarray | Sequence[int] | slice) -> np.ndarray:
        return np.asarray(self._array[indices], dtype=np.int64)


class PackedWriter:
    """Writes an .npy file of packed sequences whose number isn't known in advance."""

    def __init__(self, path: Path, width: int, dtype: np.dtype) -> None:
        self._path, self._width, self._dtype = path, width, dtype
        self._raw = path.with_suffix(".raw")
        self.rows = 0

    def __enter__(self) -> Self:
        self._file = self._raw.open("wb")
        return self

    def write(self, block: np.ndarray) -> None:
        """Append packed sequences [n, width]."""
        assert block.ndim == 2 and block.shape[1] == self._width, block.shape
        self._file.write(block.astype(self._dtype).tobytes())
        self.rows += block.shape[0]

    def __exit__(
        self, kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None:
            header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.rows, self._width)}
            with self._path.open("wb") as file, self._raw.open("rb") as raw:
                np.lib.format.write_array_header_1_0(file, header)
                shutil.copyfileobj(raw, file)
        self._raw.unlink(missing_ok=True)


def id_dtype(vocab_size: int) -> np.dtype:
    """Smallest integer type for all ids."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)
