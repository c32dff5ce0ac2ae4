"""Sources -> raw documents. The first stage of the river.

in:  files outside the store, found and read by the parts in `sources/`
out: documents.parquet, ledger.parquet (every file or record set aside or changed, and why),
     sources.jsonl (path, bytes, sha256 and documents of every file read)

Nothing in a file is fatal. A document's id is a hash of where it stands (source, path within the source,
position in the file): it survives a move of the folder and an edit of the text.
"""

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from groundup.core.durable import write_text
from groundup.core.errors import DataError
from groundup.core.recipe import Recipe, Site
from groundup.core.records import Document
from groundup.core.slot import Slot, part_name
from groundup.core.stage import Work, stage
from groundup.text.documents import (
    DOCUMENTS_FILE,
    LEDGER_FILE,
    DocumentWriter,
    LedgerEntry,
    LedgerWriter,
    spell_reasons,
)
from groundup.text.regular import Unreadable, hash_regular, read_regular
from groundup.text.sources import Note, Source, SourceFile, Text
from groundup.text.sources.stdlib import Stdlib


class Acquire(Recipe):
    """What to read."""

    sources: tuple[Annotated[Source, Slot("groundup.text.sources")], ...] = (Stdlib(),)
    max_document_bytes: int = Field(
        default=4 << 20,
        ge=1024,
        description="longer texts are cut at a paragraph or line into several documents",
    )


def outside(recipe: Acquire) -> list[dict[str, Any]]:
    """Per source a digest of its files: paths within it and contents. Raises DataError if there are none."""
    return [_source_digest(label, source) for label, source in _labelled(recipe)]


@stage(version=1, outside=outside)
def acquire(recipe: Acquire, site: Site, out: Work) -> dict[str, Any]:
    """Read all sources into `out`. Raises DataError if not a single document is found."""
    found = [(label, source, file) for label, source in _labelled(recipe) for file in source.files()]
    tally, lines = _Tally(), []
    with (
        DocumentWriter(out.file(DOCUMENTS_FILE)) as documents,
        LedgerWriter(out.file(LEDGER_FILE)) as ledger,
        out.track("acquire", len(found), "files") as progress,
    ):
        for label, source, file in found:
            reading = _read(label, source, file, recipe.max_document_bytes)
            documents.write(reading.documents)
            ledger.write(reading.entries)
            tally.add(reading)
            lines.append(json.dumps(reading.line(), ensure_ascii=False))
            progress.advance()
    write_text(out.file("sources.jsonl"), "".join(line + "\n" for line in lines))
    aside = spell_reasons(tally.aside + tally.records_aside)
    if not documents.rows:
        raise DataError(f"acquire: no document in {len(found)} files. All went aside: {aside}.")
    out.say(f"{tally.documents:,} documents from {tally.files:,} files")
    if aside:
        out.say(f"kept aside, each named in {LEDGER_FILE}: {aside}")
    return tally.metrics()


def document_id(source: str, path: str, position: str = "") -> str:
    """16 hex digits for where a document stands: the source's label, the path in it, the place in that."""
    return hashlib.sha256("\x00".join((source, path, position)).encode()).hexdigest()[:16]


def cut(text: str, max_bytes: int) -> list[str]:
    """Pieces of at most `max_bytes` of UTF-8 that join to `text`; cut after a paragraph, line, or word.

    No piece is shorter than half of `max_bytes`, but the last.
    """
    data, pieces, start = text.encode(), [], 0
    while len(data) - start > max_bytes:
        end, least = start + max_bytes, start + max_bytes // 2
        for mark in (b"\n\n", b"\n", b" "):
            at = data.rfind(mark, least, end)
            if at >= 0:
                end = at + len(mark)
                break
        while data[end] & 0xC0 == 0x80:  # never within a character
            end -= 1
        pieces.append(data[start:end].decode())
        start = end
    return [*pieces, data[start:].decode()]


@dataclass
class _Reading:
    """What one file gave."""

    label: str
    path: str
    bytes: int = 0
    sha256: str = ""
    documents: list[Document] = field(default_factory=list)
    entries: list[LedgerEntry] = field(default_factory=list)

    def line(self) -> dict[str, Any]:
        """The file's line in sources.jsonl."""
        aside = "" if self.documents else next((e.reason for e in self.entries if e.fate == "aside"), "")
        line = {"source": self.label, "path": self.path, "bytes": self.bytes, "sha256": self.sha256}
        return line | {"documents": len(self.documents)} | ({"aside": aside} if aside else {})

    def note(self, note: Note) -> None:
        position_id = document_id(self.label, self.path, note.position)
        self.entries.append(
            LedgerEntry(
                position_id,
                self.label,
                _shown(self.path, note.position),
                "acquire",
                note.fate,
                note.reason,
                note.value,
                note.threshold,
                note.detail,
            )
        )


@dataclass
class _Tally:
    files: int = 0
    documents: int = 0
    bytes: int = 0
    aside: Counter[str] = field(default_factory=Counter)
    records_aside: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    def add(self, reading: _Reading) -> None:
        self.files += bool(reading.sha256)
        self.documents += len(reading.documents)
        self.bytes += reading.bytes
        for entry in reading.entries:
            whole_file = entry.path == reading.path
            counter = (
                self.changed if entry.fate == "changed" else self.aside if whole_file else self.records_aside
            )
            counter[entry.reason] += 1

    def metrics(self) -> dict[str, Any]:
        return {
            "files_read": self.files,
            "documents": self.documents,
            "bytes_read": self.bytes,
            "files_aside": dict(sorted(self.aside.items())),
            "records_aside": dict(sorted(self.records_aside.items())),
            "changed": dict(sorted(self.changed.items())),
        }


def _labelled(recipe: Acquire) -> Iterator[tuple[str, Source]]:
    """Each source with its name; a second one of a kind gets a number, so that ids stay apart."""
    if not recipe.sources:
        raise DataError('acquire.sources is empty: name at least one source, e.g. use = "stdlib".')
    seen: Counter[str] = Counter()
    for source in recipe.sources:
        assert isinstance(source, Recipe), source
        name = part_name(source)
        seen[name] += 1
        yield (name if seen[name] == 1 else f"{name}-{seen[name]}"), source


def _source_digest(label: str, source: Source) -> dict[str, Any]:
    said, files = hashlib.sha256(), 0
    listed = sorted(source.files(), key=lambda file: file.path)
    for file in listed:
        try:
            content = file.aside or hash_regular(file.location, source.max_file_bytes)
        except Unreadable as error:
            content = f"{error.reason} {error.value}"
        said.update(json.dumps([file.path, content]).encode() + b"\n")
        files += 1
    digest = {"source": label, "files": files, "sha256": said.hexdigest()}
    return digest | {"python": platform.python_version()} if isinstance(source, Stdlib) else digest


def _read(label: str, source: Source, file: SourceFile, max_document_bytes: int) -> _Reading:
    reading = _Reading(label, file.path)
    if file.aside:
        reading.note(Note("aside", file.aside, detail=file.detail))
        return reading
    try:
        data = read_regular(file.location, source.max_file_bytes)
    except Unreadable as error:
        reading.note(Note("aside", error.reason, "", error.value, error.threshold, error.detail))
        return reading
    reading.bytes, reading.sha256 = len(data), hashlib.sha256(data).hexdigest()
    for item in source.read(file.path, data):
        if isinstance(item, Note):
            reading.note(item)
        else:
            _add_text(reading, item, source.licence, max_document_bytes)
    return reading


def _add_text(reading: _Reading, item: Text, licence: str, max_bytes: int) -> None:
    path = item.path or _shown(reading.path, item.position)
    if len(item.text.encode()) <= max_bytes:
        pieces = [("", item.text)]
    else:
        pieces = [(str(n), piece) for n, piece in enumerate(cut(item.text, max_bytes), 1)]
        size = len(item.text.encode())
        reading.note(Note("changed", "cut", item.position, size, max_bytes, f"into {len(pieces)} documents"))
    for piece, text in pieces:
        place = f"{item.position}/{piece}" if piece else item.position
        shown = f"{path}#part{piece}" if piece else path
        reading.documents.append(
            Document(
                document_id(reading.label, reading.path, place), text, reading.label, shown, licence=licence
            )
        )


def _shown(path: str, position: str) -> str:
    """A path for people: `novels.jsonl#12` is the record in line 12."""
    return f"{path}#{position}" if position else path
