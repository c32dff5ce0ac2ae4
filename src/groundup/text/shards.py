"""Output shards of one ingest task, with resume state.

in:  documents and rejects-log entries in order
out: documents/00012-000.parquet ..., rejects/00012-000.parquet ...; the location of each file's rows

Shard boundaries depend on the rows alone, so a task that was interrupted, or that reuses rows of an earlier build,
writes the same bytes as an uninterrupted one.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

from groundup.core.atomic_io import write_text
from groundup.core.records import Document
from groundup.text.documents import (
    DOCUMENTS,
    REJECTS,
    DocumentWriter,
    RejectsLogEntry,
    RejectsLogWriter,
    TableWriter,
)

SHARD_BYTES = 16 << 20
"""Approximate text size of a document shard."""
REJECTS_ROWS = 1 << 16

Row = TypeVar("Row")
RECORD_COUNTERS = ("records_rejected", "changed")
COUNTERS = ("counts", "files_rejected", *RECORD_COUNTERS)


class Stream(Generic[Row]):
    """Rows of one type written to consecutive shards. A shard closes when the sum of row weights reaches
    `limit`.
    """

    def __init__(
        self, folder: Path, task: int, writer: Callable[[Path], TableWriter[Row]], limit: int
    ) -> None:
        self.folder, self.task, self.writer, self.limit = folder, task, writer, limit
        self.shard, self.weight = 0, 0
        self.waiting: list[Row] = []
        self.places: list[list[Any]] = []
        """[shard, first row, rows]: where the rows of the file under way lie."""

    def add(self, row: Row, weight: int = 1) -> None:
        """Append a row. Closes the shard when it is full."""
        name = f"{self.task:05d}-{self.shard:03d}.parquet"
        if self.places and self.places[-1][0] == name:
            self.places[-1][2] += 1
        else:
            self.places.append([name, len(self.waiting), 1])
        self.waiting.append(row)
        self.weight += weight
        if self.weight >= self.limit:
            self.close()

    def close(self) -> None:
        """Write the buffered rows, if any, as a shard."""
        if self.waiting:
            with self.writer(self.folder / f"{self.task:05d}-{self.shard:03d}.parquet") as file:
                file.write(self.waiting)
            self.waiting, self.weight, self.shard = [], 0, self.shard + 1


class TaskShards:
    """Both output streams of a task, its counters, and the sources.jsonl lines of finished files."""

    def __init__(self, folder: Path, task: int) -> None:
        self.documents: Stream[Document] = Stream(folder / DOCUMENTS, task, DocumentWriter, SHARD_BYTES)
        self.rejects: Stream[RejectsLogEntry] = Stream(folder / REJECTS, task, RejectsLogWriter, REJECTS_ROWS)
        self.counters: dict[str, Counter[str]] = {name: Counter() for name in COUNTERS}
        self.of_file: dict[str, Counter[str]] = {name: Counter() for name in RECORD_COUNTERS}
        """What sources.jsonl will say of the records of the file under way."""
        self.lines: list[dict[str, Any]] = []
        self.records = 0
        """Records of the file under way that were read: what to skip after a stop."""
        self._noted = 0
        self._state = folder / "resume" / "ingest-shards" / f"{task:05d}.json"
        if self._state.exists():
            self._resume(json.loads(self._state.read_text(encoding="utf-8")))

    def add(self, documents: list[Document], entries: list[RejectsLogEntry]) -> None:
        """Append the documents and rejects-log entries of one record of the current file."""
        for entry in entries:
            self.rejects.add(entry)
        for document in documents:
            size = len(document.text.encode())
            self.documents.add(document, size)
            self.counters["counts"].update(documents=1, bytes_text=size)

    def count(self, name: str, reason: str) -> None:
        """Increment a counter of the task and of the current file."""
        self.counters[name][reason] += 1
        if name in RECORD_COUNTERS:
            self.of_file[name][reason] += 1

    def end_record(self) -> None:
        """Finish a record. Saves the resume state after a document shard was closed."""
        self.records += 1
        if self.documents.shard > self._noted and not self.documents.waiting:
            self._note()

    def end_file(self, line: dict[str, Any]) -> None:
        """Finish the current file; `line` is its entry in sources.jsonl."""
        places = {DOCUMENTS: self.documents.places, REJECTS: self.rejects.places}
        record_reasons = {name: dict(sorted(count.items())) for name, count in self.of_file.items() if count}
        self.lines.append(line | record_reasons | {"rows": places})
        self.of_file = {name: Counter() for name in RECORD_COUNTERS}
        self.documents.places, self.rejects.places, self.records = [], [], 0

    def finish(self) -> dict[str, Any]:
        """Close both streams; returns lines and counters as plain JSON."""
        self.documents.close()
        self.rejects.close()
        return {"files": self.lines} | {name: dict(count) for name, count in self.counters.items()}

    def _note(self) -> None:
        self._noted = self.documents.shard
        state = {
            "documents": [self.documents.shard, self.documents.places],
            "rejects": [
                self.rejects.shard,
                self.rejects.places,
                [asdict(entry) for entry in self.rejects.waiting],
            ],
            "counters": self.counters,
            "of_file": self.of_file,
            "lines": self.lines,
            "records": self.records,
        }
        write_text(self._state, json.dumps(state))

    def _resume(self, state: dict[str, Any]) -> None:
        self.documents.shard, self.documents.places = state["documents"]
        self.rejects.shard, self.rejects.places, entries = state["rejects"]
        self.rejects.waiting = [RejectsLogEntry(**entry) for entry in entries]
        self.rejects.weight = len(entries)
        self.counters = {name: Counter(count) for name, count in state["counters"].items()}
        self.of_file = {name: Counter(count) for name, count in state["of_file"].items()}
        self.lines, self.records, self._noted = state["lines"], state["records"], self.documents.shard
