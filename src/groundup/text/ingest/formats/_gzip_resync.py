"""The bytes of a web archive, unpacked piece by piece, and where the next good part begins if some are damaged.

in:  a file: plain, or in gzip, packed record by record (the rule) or in one
out: runs of bytes; damage ends a run, and the next one begins at the next member that can be unpacked
"""

import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

from groundup.text.ingest.formats.decompress import up_to_the_damage

_READ = 1 << 14
_OUT = 1 << 18
_SEARCH = 1 << 20
_GZIP, _GZIP_BITS = b"\x1f\x8b\x08", 31


class GzipStream:
    """What is ahead in the current run: `used` bytes of the file became `made` ones up to now.

    `damage` says what ended the run, "" if that is the file's end. Only a file in gzip has to be seekable.
    """

    def __init__(self, file: BinaryIO) -> None:
        """file: read from where it stands."""
        self.made = self._read = 0
        self.ended, self.damage = False, ""
        self._file, self._ahead = file, bytearray()
        self._member, self._member_at = _new(), -1
        self._input = self._next_input()
        self._more = self._gunzip if self._input.startswith(_GZIP) else self._plain

    @property
    def used(self) -> int:
        """Bytes of the file up to where unpacking stands."""
        return self._read - len(self._input)

    def fill(self, size: int) -> int:
        """Have `size` bytes ahead, or all up to the end of the run; returns how many there are."""
        while len(self._ahead) < size and not self.ended:
            out = self._more()
            self.made += len(out)
            self._ahead += out
        return len(self._ahead)

    def peek(self, size: int) -> bytes:
        """The next bytes, which stay ahead."""
        self.fill(size)
        return bytes(self._ahead[:size])

    def take(self, size: int) -> bytes:
        """The next bytes; fewer at the end of the run."""
        self.fill(size)
        taken = bytes(self._ahead[:size])
        del self._ahead[:size]
        return taken

    def put_back(self, data: bytes) -> None:
        """Have `data` ahead again."""
        self._ahead[:0] = data

    def next_run(self, begins: Callable[[bytes], object]) -> bool:
        """Drop what is ahead and go on behind the damage; False if nothing is there.

        begins: whether bytes look like the beginning of a record.
        """
        self._ahead.clear()
        at = self._next_member(begins) if self.damage else None
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
            return bytes(self._member.flush()) + self._end("the file ends early")
        if not self._input:
            return self._end("")
        if self._member_at < 0:
            self._input = self._input.lstrip(b"\0")  # padding between members is common and harmless
            if not self._input:
                return b""
            self._member, self._member_at = _new(), self.used
        before = self._member.copy()
        try:
            out: bytes = self._member.decompress(self._input, _OUT)
        except zlib.error as error:
            return up_to_the_damage(before, self._input) + self._end(str(error))
        self._input = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        if self._member.eof:
            self._member_at = -1
        return out

    def _end(self, damage: str) -> bytes:
        self.ended, self.damage = True, damage
        return b""

    def _next_member(self, begins: Callable[[bytes], object]) -> int | None:
        """Where in the file the next gzip member begins that unpacks to the beginning of a record."""
        at = self._member_at + 1
        while True:
            self._file.seek(at)
            data = self._file.read(_SEARCH + _READ)
            found = data.find(_GZIP)
            while 0 <= found < _SEARCH:
                if begins(_first_bytes(data[found : found + _READ])):
                    return at + found
                found = data.find(_GZIP, found + 1)
            if len(data) <= _SEARCH:
                return None
            at += _SEARCH


def _new() -> Any:
    return zlib.decompressobj(_GZIP_BITS)


def _first_bytes(data: bytes) -> bytes:
    try:
        return bytes(_new().decompress(data, 4096))
    except zlib.error:
        return b""
