"""Folders of a corpus and its rows per document, curated or not.

in:  the folders of ingest and curate
out: one row per document read: id, source, path, language, bytes, outcome, and metrics
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from groundup.text.documents import DOCUMENT_METRICS, DOCUMENTS
from groundup.text.inspect.report import KEPT
from groundup.text.inspect.scan import groups, rows_with, tables

CLUSTERS = "clusters.parquet"
HITS = "decontamination.parquet"
DOCUMENT_COLUMNS = ("id", "source", "path", "bytes", "outcome", "language")
"""Columns that identify a document and its outcome."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Artifact folders of ingest and, once curated, of curate."""

    ingested: Path
    curated: Path | None = None

    def stages(self) -> list[tuple[str, Path]]:
        """(stage, folder) in order."""
        return [("ingest", self.ingested), *([("curate", self.curated)] if self.curated else [])]

    def curated_path(self, name: str) -> Path:
        """A file or folder of the curate artifact; a missing path before curation."""
        return (self.curated or self.ingested / "curated") / name

    def rows(self) -> Iterator[pa.Table]:
        """All rows. Before curation every document counts as kept."""
        if self.curated:
            yield from tables(self.curated / DOCUMENT_METRICS)
            return
        for table in groups(self.ingested / DOCUMENTS, ["id", "source", "path", "language", "text"]):
            size = pc.binary_length(table.column("text")).cast(pa.int64())
            outcome = pa.array([KEPT] * table.num_rows, pa.string())
            yield table.drop_columns(["text"]).append_column("bytes", size).append_column("outcome", outcome)

    def rows_of(
        self, ids: Collection[str], columns: Sequence[str] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Rows of some documents, by id; `columns`: None = all."""
        if self.curated:
            wanted_columns = None if columns is None else list(columns)
            return {row["id"]: row for row in rows_with(self.curated / DOCUMENT_METRICS, ids, wanted_columns)}
        wanted = pa.array(sorted(ids), pa.string())
        hits = (table.filter(pc.is_in(table.column("id"), value_set=wanted)) for table in self.rows())
        return {row["id"]: row for table in hits for row in table.to_pylist()}
