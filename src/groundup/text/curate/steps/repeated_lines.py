"""Step `repeated_lines`: removes lines and paragraphs that a document repeats; the first occurrence is kept.

in:  documents
out: texts without them, `repeated_lines` or `repeated_paragraphs`, with the share of bytes removed

Menus, footers and print headers repeat within a page. Source code is unchanged. For repetition across documents see
corpus deduplication (`text/curate/dedup/repeated_spans.py`).
"""

from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.text.batch import DocumentBatch
from groundup.text.curate.dedup.repeated_spans import Cut, earlier, kinds, spans
from groundup.text.curate.types import FilterResult
from groundup.text.segment import mix


class RepeatedLines(Recipe):
    """Which repetitions within one document are removed."""

    lines: int = Field(default=1, ge=0, description="remove runs of this many repeated lines; 0 = off")
    paragraphs: bool = Field(default=True, description="remove repeated paragraphs")
    min_bytes: int = Field(
        default=30, ge=0, description="shorter spans are kept: list marks, table rows, refrains"
    )

    def without_effect(self) -> dict[str, str]:
        """See `Strict`."""
        off = not self.lines and not self.paragraphs
        return {"min_bytes": "lines = 0 and paragraphs = false remove nothing"} if off else {}

    def apply(self, batch: DocumentBatch) -> FilterResult:
        """Compare the hashes of spans within each document."""
        cut = Cut(batch)
        for kind, run in kinds(self.lines, self.paragraphs).items():
            trimmed, whole = spans(batch, run)
            again = earlier(trimmed.hashes ^ mix((trimmed.document + 1).astype("u8")))
            cut.add(kind, whole, again & (trimmed.sizes >= self.min_bytes))
        return cut.results()
