"""Step `fineweb`: FineWeb's own rules (Penedo et al. 2024, https://arxiv.org/abs/2406.17557, section 3.6).

in:  documents
out: drops with `too_few_end_marks`, `too_many_short_lines`, `repeated_line_chars`, `too_many_line_ends`

The rule on line ends per word is in FineWeb's code (datatrove) but not in the paper; for characters in repeated lines
the code's bound is 0.01, the paper's, used here, 0.1. Lines have at least one word; surrounding white space is
ignored. Source code passes. Thai and Lao have no sentence-ending marks: `end_marks` doesn't apply.
"""

import numpy as np
from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.text.batch import DocumentBatch, share
from groundup.text.curate.types import FilterResult, Rule, Values, apply_rules


class FineWeb(Recipe):
    """Bounds that separate text from lists, menus and badly extracted pages."""

    min_end_marks: float = Field(
        default=0.12, ge=0, le=1, description="minimum share of lines that end with a sentence-ending mark"
    )
    short_line: int = Field(default=30, ge=0, description="maximum characters of a short line")
    max_short_lines: float = Field(default=0.67, ge=0, le=1, description="maximum share of short lines")
    max_repeated_line_chars: float = Field(
        default=0.1, ge=0, le=1, description="maximum share of characters in lines that repeat an earlier one"
    )
    max_line_ends: float = Field(default=0.3, ge=0, description="maximum line ends per word")

    def rules(self) -> tuple[Rule, ...]:
        """The rules in FineWeb's order."""
        return (
            Rule("too_few_end_marks", "end_marks", at_least=self.min_end_marks),
            Rule("too_many_short_lines", "short_lines", at_most=self.max_short_lines),
            Rule("repeated_line_chars", "repeated_line_chars", at_most=self.max_repeated_line_chars),
            Rule("too_many_line_ends", "line_ends", at_most=self.max_line_ends),
        )

    def apply(self, batch: DocumentBatch) -> FilterResult:
        """Compute the metrics of prose and apply the rules."""
        metrics = {name: batch.of_prose(values) for name, values in self.compute_metrics(batch).items()}
        return apply_rules(metrics, self.rules(), batch.rows)

    def compute_metrics(self, batch: DocumentBatch) -> dict[str, Values]:
        """Metrics [rows] of the rules."""
        lines = batch.trimmed_lines
        return {
            "end_marks": np.where(
                batch.is_unmarked, np.nan, share(lines.per_document(lines.ends_in("ends")), lines.counts)
            ),
            "short_lines": share(lines.per_document(lines.chars <= self.short_line), lines.counts),
            "repeated_line_chars": share(
                lines.per_document(lines.repeated * lines.chars), batch.chars - batch.line_ends
            ),
            "line_ends": share(batch.line_ends, batch.word_counts),
        }
