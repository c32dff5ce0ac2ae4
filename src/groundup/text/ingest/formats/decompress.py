"""A packed file (gzip, zstd, bzip2, xz, brotli) -> the stream of what is in it.

in:  a binary file
out: Unpacked, which unpacks as it is read, no further than its limit, and says at its end why that isn't all

Damage and truncation end the stream: what came before is kept.
"""

import bz2
import contextlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, Literal

from groundup.text.ingest.types import ReadIssue

CHUNK = 1 << 16
RATIO_FLOOR = 1 << 20
"""Bytes below which nothing counts as a bomb, whatever its ratio."""

_MAGIC = {
    "gzip": b"\x1f\x8b",
    "zstd": b"\x28\xb5\x2f\xfd",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
}
_SKIPPABLE_ZSTD = b"\x2a\x4d\x18"
_BZIP2_STARTS = (b"1AY&SY", b"\x17rE8P\x90")
_GZIP_BITS = 31
_XZ_MEMORY = 128 << 20


def compression(head: bytes) -> str:
    """What a file that begins with `head` is packed by, or ""."""
    if head[1:4] == _SKIPPABLE_ZSTD and head[:1] and head[0] & 0xF0 == 0x50:
        return "zstd"
    found = next((name for name, magic in _MAGIC.items() if head.startswith(magic)), "")
    return "" if found == "bzip2" and not head.startswith(_BZIP2_STARTS, 4) else found


class DecompressedFile(io.RawIOBase):
    """What is in a packed file, unpacked while it is read; read to its end, it knows its `problem`, if any."""

    def __init__(self, file: BinaryIO, kind: str, expansion: float) -> None:
        """expansion: how many times the size of `file` may come out of it."""
        self.kind = kind
        self.limit = max(RATIO_FLOOR, int(file.seek(0, io.SEEK_END) * expansion))
        self.bytes = 0
        self.problem: ReadIssue | None = None
        file.seek(0)
        self._chunks = _UNPACKERS[kind](file)
        self._waiting = memoryview(b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the whole buffer, unless this is the end."""
        filled = 0
        while filled < len(buffer) and (self._waiting or self._unpack()):
            taken = self._waiting[: len(buffer) - filled]
            buffer[filled : filled + len(taken)] = taken
            self._waiting = self._waiting[len(taken) :]
            filled += len(taken)
        return filled

    def _unpack(self) -> bool:
        """The next chunk that isn't empty; False at the end, whatever the reason."""
        if self.problem:
            return False
        try:
            chunk = next(filter(None, self._chunks), b"")
        except _DamagedError as error:
            reason = f"damaged_{self.kind}"
            self.problem = ReadIssue("aside", reason, value=self.bytes, detail=str(error))
            return False
        self._waiting = memoryview(chunk)[: self.limit + 1 - self.bytes]
        self.bytes += len(self._waiting)
        if self.bytes > self.limit:
            self.problem = ReadIssue("aside", "expands_too_much", "", self.bytes, self.limit, self.kind)
        return bool(chunk)


class _DamagedError(Exception):
    """From here on nothing can be unpacked."""


_TOO_SHORT = "the file ends early"


def _gzip(file: BinaryIO) -> Iterator[bytes]:
    data, member = file.read(CHUNK), zlib.decompressobj(_GZIP_BITS)
    while data:
        before = member.copy()
        try:
            yield member.decompress(data, CHUNK)
        except zlib.error as error:
            yield up_to_the_damage(before, data)
            raise _DamagedError(str(error)) from None
        if member.eof:
            data, member = _next_member(file, member.unused_data, "gzip"), zlib.decompressobj(_GZIP_BITS)
            if not data:
                return
        else:
            data = member.unconsumed_tail or file.read(CHUNK)
    yield member.flush()
    raise _DamagedError(_TOO_SHORT)


def up_to_the_damage(member: Any, data: bytes) -> bytes:
    """zlib gives nothing of a chunk with an error in it, so the good part is unpacked byte by byte."""
    out = bytearray()
    with contextlib.suppress(zlib.error):
        for at in range(len(data)):
            out += member.decompress(data[at : at + 1])
    return bytes(out)


def _blocks(file: BinaryIO, kind: str, new: Callable[[], Any], errors: type[Exception]) -> Iterator[bytes]:
    """bzip2 and xz, whose decompressors look alike."""
    data, member = file.read(CHUNK), new()
    while True:
        try:
            out = member.decompress(data, CHUNK)
        except (errors, EOFError) as error:
            raise _DamagedError(str(error)) from None
        yield out
        if member.eof:
            data, member = _next_member(file, member.unused_data, kind), new()
            if not data:
                return
        elif member.needs_input:
            data = file.read(CHUNK)
            if not data:
                raise _DamagedError(_TOO_SHORT)
        else:
            data = b""


def _next_member(file: BinaryIO, rest: bytes, kind: str) -> bytes:
    """The beginning of what follows a member; padding after the last one is common, harmless, and the end."""
    magic = _MAGIC[kind]
    data = rest if len(rest) >= len(magic) else rest + file.read(CHUNK)
    return data if data.startswith(magic) else b""


def _bzip2(file: BinaryIO) -> Iterator[bytes]:
    return _blocks(file, "bzip2", bz2.BZ2Decompressor, OSError)


def _xz(file: BinaryIO) -> Iterator[bytes]:
    return _blocks(file, "xz", lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY), lzma.LZMAError)


def _by_arrow(file: BinaryIO, codec: Literal["zstd", "brotli"]) -> Iterator[bytes]:
    # Unlike the zstandard package, Arrow bounds what one call gives and knows a frame that ends early.
    import pyarrow as pa

    with pa.CompressedInputStream(pa.PythonFile(_Kept(file), mode="r"), codec) as stream:
        while True:
            try:
                out = stream.read(CHUNK)
            except OSError as error:
                if error.errno:  # the disk's own
                    raise
                raise _DamagedError(str(error)) from None
            if not out:
                return
            yield out


class _Kept(io.RawIOBase):
    """A file that stays open when Arrow closes it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self.file.read(size)


_UNPACKERS: dict[str, Callable[[BinaryIO], Iterator[bytes]]] = {
    "gzip": _gzip,
    "zstd": partial(_by_arrow, codec="zstd"),
    "brotli": partial(_by_arrow, codec="brotli"),
    "bzip2": _bzip2,
    "xz": _xz,
}
