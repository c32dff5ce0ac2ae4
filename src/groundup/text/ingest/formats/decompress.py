"""Compressed file (gzip, zstd, bzip2, xz, brotli) -> the stream of its content.

in:  a binary file of one or more members
out: DecompressedFile, which decompresses while it is read, within its size limit, and lists what it could not read

Damage costs as little as possible: everything before it is kept, and reading continues at the next intact member.
Each gap is an issue with its place in the file.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from groundup.text.ingest.formats._members import CODECS, Chunks, Codec, DamagedError, brotli, find_member
from groundup.text.ingest.types import ReadIssue

RATIO_FLOOR = 1 << 20
"""Decompressed bytes that are always allowed, whatever the ratio."""
MAX_GAPS = 100
"""Damaged places after which the rest of a file isn't read."""

_SKIPPABLE_ZSTD = b"\x2a\x4d\x18"
_BZIP2_STARTS = (b"1AY&SY", b"\x17rE8P\x90")
_SMALLEST_MEMBER = 9
"""Bytes of the smallest member of any format: a shorter gap lost no data."""
_LOOK_BACK = 2 << 20
"""Bytes before the place where damage shows that the search for the next member covers."""
_STEP = 1 << 16


def compression(head: bytes) -> str:
    """Compression format of a file that begins with `head`, or ""."""
    if head[1:4] == _SKIPPABLE_ZSTD and head[:1] and head[0] & 0xF0 == 0x50:
        return "zstd"
    name = next((name for name, codec in CODECS.items() if head.startswith(codec.magic)), "")
    return "" if name == "bzip2" and not head.startswith(_BZIP2_STARTS, 4) else name


class DecompressedFile(io.RawIOBase):
    """Content of a compressed file; `issues` is complete once it has been read to its end."""

    def __init__(self, file: BinaryIO, kind: str, max_expansion: float) -> None:
        """max_expansion: limit of the decompressed size as a multiple of the size of `file`."""
        self.kind = kind
        self.limit = max(RATIO_FLOOR, int(file.seek(0, io.SEEK_END) * max_expansion))
        self.bytes = 0
        self.issues: list[ReadIssue] = []
        self._chunks = _brotli(file) if kind == "brotli" else _members(file, CODECS[kind])
        self._ahead = memoryview(b"")
        self._last = b"\n"

    @property
    def too_large(self) -> bool:
        """Whether reading stopped at the size limit."""
        return bool(self.issues) and self.issues[-1].reason == "expands_too_much"

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills the whole buffer, except at the end."""
        filled = 0
        while filled < len(buffer) and (self._ahead or self._decompress()):
            piece = self._ahead[: len(buffer) - filled]
            buffer[filled : filled + len(piece)] = piece
            self._ahead = self._ahead[len(piece) :]
            filled += len(piece)
        return filled

    def _decompress(self) -> bool:
        """Gets the next chunk that isn't empty; False at the end, or at the size limit."""
        if self.too_large:
            return False
        separator = b""
        for item in self._chunks:
            if isinstance(item, Gap):
                self.issues.append(item.issue(self.kind, self.bytes))
                separator = b"\n" if item.lost and self._last != b"\n" else separator
            elif item:
                self._ahead = memoryview(separator + item)[: self.limit + 1 - self.bytes]
                self.bytes += len(self._ahead)
                self._last = item[-1:]
                break
        else:
            return False
        if self.bytes > self.limit:
            self.issues.append(
                ReadIssue("rejected", "expands_too_much", "", self.bytes, self.limit, self.kind)
            )
        return True


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes of a file, from `start` on, that could not be decompressed; `next` is where reading continues, if so."""

    message: str
    start: int
    next: int | None
    lost: bool = True

    def issue(self, kind: str, size: int) -> ReadIssue:
        """The issue; its value is the number of bytes decompressed before the gap."""
        after = "the rest isn't read" if self.next is None else f"reading continues at byte {self.next}"
        return ReadIssue(
            "rejected", f"damaged_{kind}", value=size, detail=f"byte {self.start}: {self.message}; {after}"
        )


def _members(file: BinaryIO, codec: Codec) -> Iterator[bytes | Gap]:
    """Chunks of all members, and the gaps between them; padding with NULs is common and no gap."""
    at, gaps = 0, 0
    while (start := _skip_nuls(file, at)) is not None:
        try:
            at = yield from _member(file, start, codec)
        except DamagedError as error:
            gaps += 1
            next_member = (
                None
                if gaps == MAX_GAPS
                else find_member(file, max(start + 1, error.offset - _LOOK_BACK), codec.magic, codec.starts)
            )
            is_member = error.offset > start
            lost = is_member or next_member is None or next_member - start >= _SMALLEST_MEMBER
            yield Gap(str(error), error.offset, next_member, lost)
            if next_member is None:
                return
            at = next_member


def _member(file: BinaryIO, start: int, codec: Codec) -> Chunks:
    """Chunks of the member at `start`; returns its end. Raises DamagedError."""
    file.seek(start)
    head = file.read(len(codec.magic))
    skippable = codec is CODECS["zstd"] and compression(head) == "zstd"
    if not head.startswith(codec.magic) and not skippable:
        raise DamagedError("not the beginning of a member", start)
    return (yield from codec.decode(file, start))


def _skip_nuls(file: BinaryIO, at: int) -> int | None:
    """Offset of the first byte from `at` on that isn't NUL; None if there is none."""
    file.seek(at)
    while data := file.read(_STEP):
        rest = data.lstrip(b"\0")
        if rest:
            return at + len(data) - len(rest)
        at += len(data)
    return None


def _brotli(file: BinaryIO) -> Iterator[bytes | Gap]:
    try:
        yield from brotli(file)
    except DamagedError as error:
        yield Gap(str(error), error.offset, None)
