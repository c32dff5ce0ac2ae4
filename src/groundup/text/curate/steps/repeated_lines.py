"""Step: lines and paragraphs that a document says again are cut; the first stays.

in:  documents
out: texts without them, `repeated_lines` or `repeated_paragraphs`, with the share of bytes that were cut

Menus, footers and print headers repeat within a page. Source code is left as it is. What repeats across documents is
for the deduplication of the whole corpus (`text/curate/dedup/repeated_spans.py`).
"""

from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.text.batch import DocumentBatch
from groundup.text.curate.dedup.repeated_spans import Cut, earlier, kinds, spans
from groundup.text.curate.types import FilterResult
from groundup.text.segment import mix


class RepeatedLines(Recipe):
    """Which repetitions within one document are cut."""

    lines: int = Field(default=1, ge=0, description="cut runs of so many lines said before; 0 = off")
    paragraphs: bool = Field(default=True, description="cut paragraphs said before")
    min_bytes: int = Field(
        default=30, ge=0, description="shorter ones stay: list marks, table rows, refrains"
    )

    def apply(self, batch: DocumentBatch) -> FilterResult:
        """Compare the hashes of spans within each document."""
        cut = Cut(batch)
        for kind, run in kinds(self.lines, self.paragraphs).items():
            trimmed, whole = spans(batch, run)
            again = earlier(trimmed.hashes ^ mix((trimmed.document + 1).astype("u8")))
            cut.add(kind, whole, again & (trimmed.sizes >= self.min_bytes))
        return cut.results()
