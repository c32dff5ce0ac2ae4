"""Slot: where text comes from. One file per source; each satisfies `Source`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from groundup.text.documents import Fate


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that a source offers. `path` is relative to the source's root and goes into ids and the ledger.

    `location` is where it lies today. A file that can't be read has its reason in `aside`, and isn't opened.
    """

    path: str
    location: Path
    aside: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A document found in a file. `position` tells it from others in there; `path` replaces the file's."""

    text: str
    position: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """Something the ledger should say about a file, or about the record at `position` in it."""

    fate: Fate
    reason: str
    position: str = ""
    value: float | None = None
    threshold: float | None = None
    detail: str = ""


class Source(Protocol):
    """Offers files, and knows how to find documents in the bytes of one."""

    @property
    def licence(self) -> str:
        """The licence of every document of this source, "" if unknown."""

    @property
    def max_file_bytes(self) -> int:
        """Larger files go aside unread."""

    def files(self) -> Iterator[SourceFile]:
        """All files in a stable order, also those that can't be read. Raises DataError if there are none."""

    def read(self, path: str, data: bytes) -> Iterator[Text | Note]:
        """What is in one file. A note with the fate "aside" and no position says that nothing is."""
