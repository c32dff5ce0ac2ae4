"""Rows in a file, read by a dataset."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundup.align.data.file_rows import FileDataset
from groundup.core.records import Record
from groundup.text.documents import RejectsLogEntry


def lines(folder: Path, rows: Sequence[Any], name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(dataset: FileDataset) -> tuple[list[Record], list[RejectsLogEntry]]:
    entries: list[RejectsLogEntry] = []
    return list(dataset.records(None, entries.append)), entries
