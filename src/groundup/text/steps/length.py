"""Step: documents too short to teach anything, or too long to be one document.

in:  documents
out: drops with `too_few_chars`, `too_many_chars`, `too_few_words`
"""

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from groundup.core.recipe import Recipe
from groundup.text.steps import WORD, Rules, Verdicts


class Length(Recipe):
    """Bounds on characters and words. A word is what stands between white space."""

    min_chars: int = Field(default=32, ge=0, description="shorter documents are dropped")
    max_chars: int = Field(default=10_000_000, ge=1, description="longer documents are dropped")
    min_words: int = Field(default=5, ge=0, description="documents of fewer words are dropped")

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> "Length":
        if self.min_chars > self.max_chars:
            raise ValueError(
                f"min_chars = {self.min_chars} is above max_chars = {self.max_chars}: nothing can pass"
            )
        return self

    def judge(self, documents: pa.Table) -> Verdicts:
        """Count, then compare."""
        text = documents.column("text")
        chars = pc.utf8_length(text).to_pylist()
        rules = Rules(documents.num_rows)
        rules.broken("too_few_chars", chars, self.min_chars, above=False)
        rules.broken("too_many_chars", chars, self.max_chars)
        words = pc.count_substring_regex(text, WORD).to_pylist()
        rules.broken("too_few_words", words, self.min_words, above=False)
        return rules.verdicts()
