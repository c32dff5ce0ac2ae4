"""Step `c4`: the rules of C4 (Raffel et al. 2020, https://jmlr.org/papers/v21/20-074.html, section 2.2).

in:  documents
out: texts without non-sentence lines (`lines_removed`) or without citation marks (`citations_removed`);
     drops with `lorem_ipsum`, `curly_bracket`, `too_few_sentences`

A line is removed, with the white space before it, if it has a word of more than 1000 characters, doesn't end like a
sentence, has fewer than three words, mentions JavaScript, cookies or terms of use. A page is dropped if a remaining
line has filler text or a curly bracket, or if fewer than five sentences remain. (The paper says three words and five
sentences; the code that made the corpus five and three.) FineWeb keeps lines without an end mark: `end_marks = []`.
Source code passes. Sentences are counted by their marks; those of other scripts (。।؟) end a line as well as the
`end_marks`, and in Thai and Lao, which have none, every line ends like a sentence.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.text.batch import DocumentBatch, share
from groundup.text.curate.types import FilterResult, Rule, Values, apply_rules
from groundup.text.segment import Ints, Mask, SpanGroups, Spans

_CITATION = r"\[[0-9]*\]|\[edit\]|\[citation needed\]"
_POLICY = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies",
)  # fmt: skip


class C4(Recipe):
    """Which lines are removed, and which documents are dropped."""

    end_marks: tuple[str, ...] = Field(
        default=(".", "?", "!", '"', "'"),
        description="sentence-ending marks that a line needs to be kept; [] = none needed",
    )
    min_line_words: int = Field(default=3, ge=0, description="minimum words per line")
    max_word_chars: int = Field(default=1000, ge=1, description="lines with a longer word are removed")
    min_sentences: int = Field(default=5, ge=0, description="minimum sentences per document")
    javascript: bool = Field(default=True, description="remove lines that mention JavaScript")
    policy: bool = Field(default=True, description="remove lines on cookies, privacy and terms of use")
    lorem_ipsum: bool = Field(default=True, description="drop documents with filler text")
    curly_brackets: bool = Field(default=True, description="drop documents with a {")
    citations: bool = Field(default=True, description="remove citation marks like [3] and [citation needed]")

    def rules(self) -> tuple[Rule, ...]:
        """Rules on documents, after lines are removed."""
        filler = (Rule("lorem_ipsum", "lorem_ipsum", at_most=0),) if self.lorem_ipsum else ()
        curly = (Rule("curly_bracket", "curly_brackets", at_most=0),) if self.curly_brackets else ()
        return (*filler, *curly, Rule("too_few_sentences", "sentences", at_least=self.min_sentences))

    def apply(self, batch: DocumentBatch) -> FilterResult:
        """Remove lines and citation marks, then apply the rules."""
        metrics, texts = self.clean(batch)
        if self.citations:
            cited, without = without_citations(batch)
            again, cleaned = self.clean(without)
            for name, values in again.items():
                metrics[name][cited] = values
            for row, uncited, new in zip(cited, without.texts, cleaned, strict=True):
                texts[row] = uncited if new is None else new
        metrics = {name: batch.of_prose(values) for name, values in metrics.items()}
        return _changed(apply_rules(metrics, self.rules(), batch.rows), texts)

    def clean(self, batch: DocumentBatch) -> tuple[dict[str, Values], list[str | None]]:
        """Metrics [rows], and texts of prose without the removed lines; None where no line is removed."""
        selection, lines = self.look(batch), batch.trimmed_lines
        removed = lines.per_document(~selection.kept)
        metrics = {
            "lines_removed": share(removed, lines.counts),
            "lorem_ipsum": lines.per_document(selection.filler),
            "curly_brackets": lines.per_document(selection.curly),
            "sentences": lines.per_document(_sentences(lines) * selection.kept),
        }
        staying = _staying(lines, selection.kept)
        texts: list[str | None] = [None] * batch.rows
        for row in np.flatnonzero((removed > 0) & ~batch.is_code):
            whole = slice(batch.offsets[row], batch.offsets[row + 1])
            texts[row] = batch.data[whole][staying[whole]].tobytes().decode().strip()
        return metrics, texts

    def look(self, batch: DocumentBatch) -> "_Lines":
        """Lines to keep, and lines that drop the document."""
        words, lines = batch.words, batch.trimmed_lines
        lower = batch.data.tobytes().lower()
        kept = np.ones(len(lines.start), dtype=bool)
        kept[_line_of(lines, np.flatnonzero(words.chars > self.max_word_chars))] = False
        if self.end_marks:
            ended = np.any([lines.ends(mark) for mark in self.end_marks], axis=0)
            ended |= lines.sentence_end >= 0x80
            ended |= lines.words.begins_in("unmarked")[lines.word[1:] - 1] > 0
            kept &= ended & ~lines.ends("...")
        kept &= lines.word_counts >= self.min_line_words
        filler = kept & _mentions(lines, lower, "lorem ipsum")
        if self.javascript:
            kept &= ~_mentions(lines, lower, "javascript")
        curly = kept & _holding(lines, np.flatnonzero(batch.data == ord("{")))
        if self.policy:
            kept &= ~np.any([_mentions(lines, lower, phrase) for phrase in _POLICY], axis=0)
        return _Lines(kept, filler, curly)


@dataclass(frozen=True)
class _Lines:
    """[lines] each: lines to keep; lines with filler text; lines with a curly bracket."""

    kept: Mask
    filler: Mask
    curly: Mask


def without_citations(batch: DocumentBatch) -> tuple[Ints, DocumentBatch]:
    """Rows of prose with citation marks, and a batch of these without the marks."""
    rows = np.flatnonzero((batch.count(batch.data == ord("[")) > 0) & ~batch.is_code)
    old = batch.text.take(pa.array(rows))
    new = pc.replace_substring_regex(old, _CITATION, "")
    cited = pc.not_equal(old, new)
    rows = rows[np.asarray(cited, dtype=bool)]
    documents = batch.documents.take(rows)
    at = documents.schema.get_field_index("text")
    return rows, DocumentBatch(documents.set_column(at, "text", new.filter(cited)))


def _sentences(lines: SpanGroups) -> Ints:
    """[lines]: sentences per line: one for its last word, and one for every other word that ends a sentence.

    A word ends a sentence with . ! or ? of any script, perhaps followed by a closing quote or bracket, unless the next
    word begins with a lower-case letter. In scripts without such marks a space ends a sentence.
    """
    words = lines.words
    following = np.append(words.start[1:], len(lines.data))
    first = np.append(lines.data, np.uint8(0))[following]
    small = (first >= ord("a")) & (first <= ord("z"))
    ends = (words.sentence_end > 0) & ~small
    ends |= (words.begins_in("unmarked") > 0) & (following > words.end)
    ends[lines.word[1:] - 1] = True
    return np.diff(np.append(0, np.cumsum(ends))[lines.word])


def _line_of(lines: SpanGroups, words: Ints) -> Ints:
    """Lines that contain these words."""
    return np.searchsorted(lines.word, words, side="right") - 1


def _holding(lines: Spans, positions: Ints, size: int = 1) -> Mask:
    """[lines]: whether a line contains any of these ranges of `size` bytes."""
    line = lines.at(positions)
    holding = np.zeros(len(lines.start), dtype=bool)
    holding[line[(line >= 0) & (line == lines.at(positions + size - 1))]] = True
    return holding


def _mentions(lines: Spans, lower: bytes, phrase: str) -> Mask:
    """[lines]: whether each contains `phrase`; `lower` is the texts in lower case."""
    wanted, positions = phrase.encode(), []
    at = lower.find(wanted)
    while at >= 0:
        positions.append(at)
        at = lower.find(wanted, at + len(wanted))
    return _holding(lines, np.array(positions, dtype=np.int64), len(wanted))


def _staying(lines: Spans, kept: Mask) -> Mask:
    """[bytes]: bytes of kept lines, each with the white space before it."""
    begin = np.append(0, lines.end)[:-1]
    firsts = lines.first[:-1][lines.counts > 0]
    begin[firsts] = lines.start[firsts]
    depth = np.zeros(len(lines.data) + 1, np.int8)
    depth[begin[kept]] += 1
    depth[lines.end[kept]] -= 1
    return np.cumsum(depth[:-1], dtype=np.int8) > 0


def _changed(result: FilterResult, texts: list[str | None]) -> FilterResult:
    """The result with new texts and reasons for documents that aren't dropped; empty texts are dropped."""
    reason, value = list(result.reason), list(result.value)
    removed = result.metrics["lines_removed"]
    for row, text in enumerate(texts):
        if reason[row] is not None:
            texts[row] = None
        elif text is not None:
            texts[row] = text or None
            reason[row] = "lines_removed" if removed[row] else "citations_removed"
            value[row] = float(removed[row]) if removed[row] else None
    return replace(result, reason=reason, value=value, text=texts)
