"""Step `length`: drops documents that are too short or too long.

in:  documents
out: drops with `too_few_chars`, `too_many_chars`, `too_few_words`
"""

import numpy as np
from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.text.batch import DocumentBatch
from groundup.text.curate.types import FilterResult, Rule, apply_rules


class Length(Recipe):
    """Bounds on characters and words. Words are separated by white space."""

    min_chars: int = Field(default=32, ge=0, description="minimum characters per document")
    max_chars: int = Field(default=10_000_000, ge=1, description="maximum characters per document")
    min_words: int = Field(default=5, ge=0, description="minimum words per document")

    def rules(self) -> tuple[Rule, ...]:
        """Rules on `chars` and `words`."""
        return (
            Rule("too_few_chars", "chars", at_least=self.min_chars),
            Rule("too_many_chars", "chars", at_most=self.max_chars),
            Rule("too_few_words", "words", at_least=self.min_words),
        )

    def apply(self, batch: DocumentBatch) -> FilterResult:
        """Count and apply the rules."""
        metrics = {
            "chars": batch.chars.astype(np.float64),
            "words": batch.words.counts.astype(np.float64),
        }
        return apply_rules(metrics, self.rules(), batch.rows)
