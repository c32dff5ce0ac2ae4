"""Step `gopher_quality`: quality rules of Gopher (Rae et al. 2021, https://arxiv.org/abs/2112.11446, appendix A1.1).

in:  documents
out: drops with `too_few_words`, `too_many_words`, `words_too_short`, `words_too_long`, `too_many_hashes`,
     `too_many_ellipses`, `too_many_bullet_lines`, `too_many_ellipsis_lines`, `too_few_alphabetic_words`,
     `too_few_stop_words`

Source code passes. Words are separated by white space; those without a letter or digit are symbols and excluded from
averages. Lines have at least one word. The stop words are English: documents in other languages are exempt from that
rule. In scripts without spaces the number of words is estimated (`DocumentBatch.word_counts`), and neither word
length nor stop words apply.
"""

from collections.abc import Callable
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from groundup.core.recipe import Recipe
from groundup.text.batch import DocumentBatch, share
from groundup.text.curate.types import FilterResult, Rule, Values, apply_rules
from groundup.text.segment import Mask, Spans, hashes_of, stretches
from groundup.text.unicode_classes import LETTER

ELLIPSES = ("...", "…")


class GopherQuality(Recipe):
    """Bounds for documents of English prose."""

    min_words: int = Field(default=50, ge=0, description="minimum words per document")
    max_words: int = Field(default=100_000, ge=1, description="maximum words per document")
    min_word_length: float = Field(default=3.0, ge=0, description="minimum mean characters per word")
    max_word_length: float = Field(default=10.0, ge=0, description="maximum mean characters per word")
    max_symbols: float = Field(
        default=0.1, ge=0, description="maximum # per word, and maximum ellipses per word"
    )
    max_bullet_lines: float = Field(
        default=0.9, ge=0, le=1, description="maximum share of lines that start with a bullet"
    )
    max_ellipsis_lines: float = Field(
        default=0.3, ge=0, le=1, description="maximum share of lines that end with an ellipsis"
    )
    min_alphabetic: float = Field(default=0.8, ge=0, le=1, description="minimum share of words with a letter")
    min_stop_words: int = Field(default=2, ge=0, description="minimum number of different stop words")
    stop_words: tuple[str, ...] = Field(
        default=("the", "be", "to", "of", "and", "that", "have", "with"),
        description="stop words, case-sensitive",
    )
    language: str = Field(
        default="en",
        description="language of the stop words; documents known to be in another are exempt",
    )
    bullets: tuple[str, ...] = Field(
        default=("•", "-"), min_length=1, description="prefixes of a bullet line"
    )

    @model_validator(mode="after")
    def _stop_words_suffice(self) -> Self:
        if self.min_stop_words > len(set(self.stop_words)):
            raise ValueError(
                f"min_stop_words = {self.min_stop_words} is more than the {len(set(self.stop_words))} stop_words: "
                "nothing can pass"
            )
        return self

    def without_effect(self) -> dict[str, str]:
        """See `Strict`."""
        reason = "min_stop_words = 0 needs none"
        return {} if self.min_stop_words else dict.fromkeys(("stop_words", "language"), reason)

    def rules(self) -> tuple[Rule, ...]:
        """The rules in the paper's order."""
        return (
            Rule("too_few_words", "words", at_least=self.min_words),
            Rule("too_many_words", "words", at_most=self.max_words),
            Rule("words_too_short", "word_length", at_least=self.min_word_length),
            Rule("words_too_long", "word_length", at_most=self.max_word_length),
            Rule("too_many_hashes", "hashes", at_most=self.max_symbols),
            Rule("too_many_ellipses", "ellipses", at_most=self.max_symbols),
            Rule("too_many_bullet_lines", "bullet_lines", at_most=self.max_bullet_lines),
            Rule("too_many_ellipsis_lines", "ellipsis_lines", at_most=self.max_ellipsis_lines),
            Rule("too_few_alphabetic_words", "alphabetic", at_least=self.min_alphabetic),
            Rule("too_few_stop_words", "stop_words", at_least=self.min_stop_words),
        )

    def apply(self, batch: DocumentBatch) -> FilterResult:
        """Compute the metrics of prose and apply the rules."""
        metrics = {name: batch.of_prose(values) for name, values in self.compute_metrics(batch).items()}
        return apply_rules(metrics, self.rules(), batch.rows)

    def compute_metrics(self, batch: DocumentBatch) -> dict[str, Values]:
        """Metrics [rows] of the rules."""
        words, lines = batch.words, batch.trimmed_lines
        alphabetic = words.marked(batch.content == LETTER) > 0
        has_content = words.marked(batch.content > 0) > 0
        count = words.per_document(has_content)
        length = share(words.per_document(words.chars * has_content), count)
        return {
            "words": count / batch.letters_per_word,
            "word_length": np.where(batch.letters_per_word > 1, np.nan, length),
            "hashes": share(batch.count(batch.data == ord("#")), batch.word_counts),
            "ellipses": share(_ellipses(batch), batch.word_counts),
            "bullet_lines": share(lines.per_document(_any(lines.begins, self.bullets)), lines.counts),
            "ellipsis_lines": share(lines.per_document(_any(lines.ends, ELLIPSES)), lines.counts),
            "alphabetic": share(words.per_document(alphabetic), words.counts),
            "stop_words": np.where(self._stop_words_apply(batch), _different(words, self.stop_words), np.nan),
        }

    def _stop_words_apply(self, batch: DocumentBatch) -> Mask:
        """[rows]: whether the stop-word rule applies."""
        languages = batch.strings("language")
        known = np.array([code == self.language for code in languages], dtype=bool)
        unknown = np.array([code in ("", "und") for code in languages], dtype=bool)
        maybe: Mask = unknown & (batch.letters_per_word == 1)
        return known | maybe


def _ellipses(batch: DocumentBatch) -> Values:
    """[rows]: number of `...` and … in each text."""
    dots = stretches(batch.data, batch.offsets, batch.data == ord("."))
    single = batch.data == 0xE2
    single[:-2] &= (batch.data[1:-1] == 0x80) & (batch.data[2:] == 0xA6)
    return dots.per_document(dots.sizes // 3) + batch.count(single)


def _any(test: Callable[[str], Mask], prefixes: tuple[str, ...]) -> Mask:
    return np.asarray(np.any([test(prefix) for prefix in prefixes], axis=0))


def _different(words: Spans, wanted: tuple[str, ...]) -> Values:
    """[documents]: number of different wanted words in each."""
    counts = np.zeros(len(words.counts))
    for wanted_hash in hashes_of(wanted):
        counts[words.document[words.hashes == wanted_hash]] += 1
    return counts
