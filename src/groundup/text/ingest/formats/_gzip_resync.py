"""Gzip stream of a web archive that continues at the next intact record after damage.

in:  a file: plain, or in gzip with one member per record (the rule) or in one member
out: runs of bytes; damage ends a run, and the next run starts at the next member that begins a record
"""

import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

from groundup.text.ingest.formats._members import find_member, intact_part

MAX_RUNS = 1000
"""Damaged places after which the rest of an archive isn't read."""

_READ = 1 << 14
_OUTPUT = 1 << 18
_GZIP, _GZIP_BITS = b"\x1f\x8b\x08", 31


class GzipStream:
    """Buffered bytes of the current run: `packed` bytes of the file have become `unpacked` bytes so far.

    `damage` is the error that ended the run, "" at the end of the file. Only a gzip file has to be seekable.
    """

    def __init__(self, file: BinaryIO) -> None:
        """file: read from its current position."""
        self.unpacked = self._read = self._runs = 0
        self.ended, self.damage = False, ""
        self._file, self._buffer = file, bytearray()
        self._member, self._member_at = _new(), -1
        self._input = self._next_input()
        self._more = self._gunzip if self._input.startswith(_GZIP) else self._plain

    @property
    def packed(self) -> int:
        """Bytes of the file decompressed so far."""
        return self._read - len(self._input)

    def fill(self, size: int) -> int:
        """Buffers `size` bytes, or all to the end of the run; returns the number of buffered bytes."""
        while len(self._buffer) < size and not self.ended:
            output = self._more()
            self.unpacked += len(output)
            self._buffer += output
        return len(self._buffer)

    def peek(self, size: int) -> bytes:
        """The next bytes, which stay buffered."""
        self.fill(size)
        return bytes(self._buffer[:size])

    def take(self, size: int) -> bytes:
        """The next bytes; fewer at the end of the run."""
        self.fill(size)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def put_back(self, data: bytes) -> None:
        """Puts `data` in front of the buffer."""
        self._buffer[:0] = data

    def next_run(self, begins: Callable[[bytes], object]) -> bool:
        """Clears the buffer and continues after the damage; False if there is no further member.

        begins: whether bytes are the beginning of a record.
        """
        self._buffer.clear()
        self._runs += 1
        at = self._next_member(begins) if self.damage and self._runs < MAX_RUNS else None
        self.damage, self.ended = "", at is None
        if at is None:
            return False
        self._file.seek(at)
        self._input, self._read, self._member_at = b"", at, -1
        return True

    def _next_input(self) -> bytes:
        data = self._file.read(_READ)
        self._read += len(data)
        return data

    def _plain(self) -> bytes:
        data = self._input or self._next_input()
        self._input, self.ended = b"", not data
        return data

    def _gunzip(self) -> bytes:
        self._input = self._input or self._next_input()
        if not self._input and self._member_at >= 0:
            return bytes(self._member.flush()) + self._end("the file ends inside a member")
        if not self._input:
            return self._end("")
        if self._member_at < 0:
            self._input = self._input.lstrip(b"\0")  # padding between members is common and harmless
            if not self._input:
                return b""
            self._member, self._member_at = _new(), self.packed
        before = self._member.copy()
        try:
            output: bytes = self._member.decompress(self._input, _OUTPUT)
        except zlib.error as error:
            return intact_part(before, self._input) + self._end(str(error))
        self._input = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        if self._member.eof:
            self._member_at = -1
        return output

    def _end(self, damage: str) -> bytes:
        self.ended, self.damage = True, damage
        return b""

    def _next_member(self, begins: Callable[[bytes], object]) -> int | None:
        """Offset of the next gzip member that decompresses to the beginning of a record."""
        return find_member(self._file, self._member_at + 1, _GZIP, lambda data: begins(_first_bytes(data)))


def _new() -> Any:
    return zlib.decompressobj(_GZIP_BITS)


def _first_bytes(data: bytes) -> bytes:
    try:
        return bytes(_new().decompress(data, 4096))
    except zlib.error:
        return b""
