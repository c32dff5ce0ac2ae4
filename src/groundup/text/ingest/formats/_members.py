"""Members of compressed files: one decoder per format, and the search for the next intact member after damage.

in:  a seekable file and the offset of a member (gzip member, zstd frame, bzip2 or xz stream)
out: its bytes in chunks of about CHUNK; DamagedError with everything before the damage already given
"""

import bz2
import contextlib
import io
import lzma
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import zstandard

CHUNK = 1 << 16
MAX_TRIALS = 20_000
"""Candidates that one search for the next member tries to decompress: chance finds are one in 16 MB."""

_GZIP_BITS = 31
_XZ_MEMORY = 128 << 20
_SEARCH_BYTES, _PROBE_BYTES = 1 << 20, 1 << 14
_ZSTD_BLOCK = 1 << 17
_SKIPPABLE = b"\x2a\x4d\x18"
_ENDS_EARLY = "the file ends inside a member"

Chunks = Generator[bytes, None, int]
"""Decompressed chunks; the return value is the offset of the first byte after the member."""


class DamagedError(Exception):
    """A member can't be decompressed past `offset` (about) of the file."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Codec:
    """A compression format. `magic` begins each member; `decode` decompresses the member at an offset."""

    magic: bytes
    decode: Callable[[BinaryIO, int], Chunks]

    def starts(self, data: bytes) -> bool:
        """Whether `data`, which may be cut, begins with an intact member."""
        try:
            return data.startswith(self.magic) and any(self.decode(io.BytesIO(data), 0))
        except DamagedError as error:
            return str(error) == _ENDS_EARLY


def find_member(file: BinaryIO, start: int, magic: bytes, is_member: Callable[[bytes], object]) -> int | None:
    """Offset of the next member at or after `start`; None if there is none, or only after MAX_TRIALS candidates.

    is_member: whether the bytes at a `magic` begin an intact member.
    """
    trials = 0
    while True:
        file.seek(start)
        data = file.read(_SEARCH_BYTES + _PROBE_BYTES)
        at = data.find(magic)
        while 0 <= at < _SEARCH_BYTES:
            trials += 1
            if is_member(data[at : at + _PROBE_BYTES]):
                return start + at
            if trials == MAX_TRIALS:
                return None
            at = data.find(magic, at + 1)
        if len(data) <= _SEARCH_BYTES:
            return None
        start += _SEARCH_BYTES


def intact_part(member: Any, data: bytes) -> bytes:
    """Output of a zlib decompressor for the part of `data` before an error, found by bisection.

    zlib itself returns nothing for a chunk that contains an error.
    """
    output = bytearray()
    while data:
        half = (len(data) + 1) // 2
        trial = member.copy()
        try:
            output += trial.decompress(data[:half])
        except zlib.error:
            if half == 1:
                break
            data = data[:half]
        else:
            member, data = trial, data[half:]
    return bytes(output)


def _gzip(file: BinaryIO, start: int) -> Chunks:
    file.seek(start)
    member = zlib.decompressobj(_GZIP_BITS)
    while not member.eof:
        data = member.unconsumed_tail or file.read(CHUNK)
        if not data:
            yield member.flush()
            raise DamagedError(_ENDS_EARLY, file.tell())
        before = member.copy()
        try:
            yield member.decompress(data, CHUNK)
        except zlib.error as error:
            yield intact_part(before, data)
            raise DamagedError(str(error), file.tell()) from None
    return file.tell() - len(member.unused_data)


def _blocks(file: BinaryIO, start: int, new: Callable[[], Any], error_type: type[Exception]) -> Chunks:
    """bzip2 and xz, whose decompressors have one interface."""
    file.seek(start)
    member, size = new(), 0
    while not member.eof:
        data = file.read(CHUNK) if member.needs_input else b""
        if member.needs_input and not data:
            raise DamagedError(_ENDS_EARLY, file.tell())
        try:
            output = member.decompress(data, CHUNK)
        except (error_type, EOFError) as error:
            offset = file.tell()
            yield _before_the_error(file, start, new(), error_type, size)
            raise DamagedError(str(error), offset) from None
        size += len(output)
        yield output
    return file.tell() - len(member.unused_data)


def _before_the_error(
    file: BinaryIO, start: int, member: Any, error_type: type[Exception], size: int
) -> bytes:
    """Output after the first `size` bytes and before the error, which the call that failed has discarded."""
    file.seek(start)
    total, rest = 0, bytearray()
    with contextlib.suppress(error_type, EOFError):
        while len(rest) < CHUNK:
            data = file.read(CHUNK) if member.needs_input else b""
            output = member.decompress(data, min(CHUNK, size - total) or 1)
            rest += output if total == size else b""
            total += len(output) if total < size else 0
    return bytes(rest)


def _zstd(file: BinaryIO, start: int) -> Chunks:
    """A frame, block by block: no block gives more than 128 KB, and damage loses nothing before its block."""
    file.seek(start)
    header = _zstd_header(file)
    if header[1:4] == _SKIPPABLE:
        return file.seek(int.from_bytes(header[4:8], "little"), io.SEEK_CUR)
    frame = zstandard.ZstdDecompressor().decompressobj()
    checksum = 4 if header[4] & 4 else 0
    try:
        frame.decompress(header)
        last = False
        while not last:
            block, last = _zstd_block(file)
            yield frame.decompress(block + (_exactly(file, checksum) if last else b""))
    except zstandard.ZstdError as error:
        raise DamagedError(str(error), file.tell()) from None
    return file.tell()


def _zstd_header(file: BinaryIO) -> bytes:
    """The frame header of RFC 8878, section 3.1.1.1; or magic and size of a skippable frame."""
    header = _exactly(file, 5)
    if header[1:4] == _SKIPPABLE:
        return header + _exactly(file, 3)
    flags = header[4]
    one_segment = flags >> 5 & 1
    size = (1 - one_segment) + (0, 1, 2, 4)[flags & 3] + (one_segment, 2, 4, 8)[flags >> 6]
    return header + _exactly(file, size)


def _zstd_block(file: BinaryIO) -> tuple[bytes, bool]:
    """(block with its header, whether it is the last one)."""
    header = _exactly(file, 3)
    fields = int.from_bytes(header, "little")
    kind, size = fields >> 1 & 3, fields >> 3
    if kind == 3 or size > _ZSTD_BLOCK:
        raise DamagedError("invalid block header", file.tell())
    return header + _exactly(file, 1 if kind == 1 else size), bool(fields & 1)


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise DamagedError(_ENDS_EARLY, file.tell())
    return data


def brotli(file: BinaryIO) -> Iterator[bytes]:
    """A brotli stream, which has neither magic nor members. Raises DamagedError."""
    size = 0
    try:
        for chunk in _by_arrow(file, CHUNK):
            size += len(chunk)
            yield chunk
    except OSError as error:
        if error.errno:  # an I/O error of the file itself
            raise
        rest = bytearray()
        with contextlib.suppress(OSError):
            for chunk in _by_arrow(file, 1, skip=size):
                rest += chunk
        yield bytes(rest)
        raise DamagedError(str(error), file.tell()) from None


def _by_arrow(file: BinaryIO, step: int, skip: int = 0) -> Iterator[bytes]:
    import pyarrow as pa

    file.seek(0)
    with pa.CompressedInputStream(pa.PythonFile(_KeptOpen(file), mode="r"), "brotli") as stream:
        while skip and (chunk := stream.read(min(skip, CHUNK))):
            skip -= len(chunk)
        while chunk := stream.read(step):
            yield chunk


class _KeptOpen(io.RawIOBase):
    """A file that stays open when Arrow closes it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self.file.read(size)


CODECS = {
    "gzip": Codec(b"\x1f\x8b\x08", _gzip),
    "zstd": Codec(b"\x28\xb5\x2f\xfd", _zstd),
    "bzip2": Codec(b"BZh", partial(_blocks, new=bz2.BZ2Decompressor, error_type=OSError)),
    "xz": Codec(
        b"\xfd7zXZ\x00",
        partial(_blocks, new=partial(lzma.LZMADecompressor, memlimit=_XZ_MEMORY), error_type=lzma.LZMAError),
    ),
}
