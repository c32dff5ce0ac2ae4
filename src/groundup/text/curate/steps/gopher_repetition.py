"""Step `gopher_repetition`: repetition rules of Gopher (Rae et al. 2021, https://arxiv.org/abs/2112.11446, table A1).

in:  documents
out: drops with `repeated_lines`, `repeated_line_chars`, `repeated_paragraphs`, `repeated_paragraph_chars`,
     `frequent_2gram` ... `frequent_4gram`, `repeated_5gram` ... `repeated_10gram`

A line, paragraph or n-gram is repeated if the same occurs earlier in the document; characters shared by several
n-grams count once. Texts of fewer than 50 words, which Gopher's quality rules drop anyway, are exempt: one repeated
word pair is a fifth of a sentence. Source code passes: repetition is normal there (`return NotImplemented`). In
scripts without spaces n words are n times the mean letters per word (`DocumentBatch.letters_per_word`).
"""

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.text.batch import DocumentBatch, share
from groundup.text.curate.types import FilterResult, Rule, Values, apply_rules
from groundup.text.segment import Ints, Spans, groups, longer

_FREQUENT = range(2, 5)
_REPEATED = range(5, 11)


def _share(default: float, what: str) -> float:
    value: float = Field(default=default, ge=0, le=1, description=what)
    return value


class GopherRepetition(Recipe):
    """Maximum shares of repetition in a document."""

    min_words: int = Field(default=50, ge=0, description="documents of fewer words are exempt")
    max_lines: float = _share(0.30, "share of lines that repeat an earlier one")
    max_line_chars: float = _share(0.20, "share of characters in such lines")
    max_paragraphs: float = _share(0.30, "share of paragraphs that repeat an earlier one")
    max_paragraph_chars: float = _share(0.20, "share of characters in such paragraphs")
    max_2gram: float = _share(0.20, "share of characters in the most frequent word pair")
    max_3gram: float = _share(0.18, "the same for three words")
    max_4gram: float = _share(0.16, "the same for four words")
    max_5gram: float = _share(0.15, "share of characters in runs of five words that repeat an earlier one")
    max_6gram: float = _share(0.14, "the same for six words")
    max_7gram: float = _share(0.13, "the same for seven words")
    max_8gram: float = _share(0.12, "the same for eight words")
    max_9gram: float = _share(0.11, "the same for nine words")
    max_10gram: float = _share(0.10, "the same for ten words")

    def rules(self) -> tuple[Rule, ...]:
        """The rules in the table's order."""
        bounds = {
            "repeated_lines": self.max_lines,
            "repeated_line_chars": self.max_line_chars,
            "repeated_paragraphs": self.max_paragraphs,
            "repeated_paragraph_chars": self.max_paragraph_chars,
        }
        bounds |= {f"frequent_{n}gram": getattr(self, f"max_{n}gram") for n in _FREQUENT}
        bounds |= {f"repeated_{n}gram": getattr(self, f"max_{n}gram") for n in _REPEATED}
        return tuple(Rule(name, name, at_most=bound) for name, bound in bounds.items())

    def apply(self, batch: DocumentBatch) -> FilterResult:
        """Compute the metrics of prose of sufficient length and apply the rules."""
        long = batch.word_counts >= self.min_words
        metrics = {
            name: batch.of_prose(np.where(long, values, np.nan))
            for name, values in self.compute_metrics(batch).items()
        }
        return apply_rules(metrics, self.rules(), batch.rows)

    def compute_metrics(self, batch: DocumentBatch) -> dict[str, Values]:
        """Metrics [rows] of the rules."""
        metrics: dict[str, Values] = {}
        for name, pieces in (("line", batch.trimmed_lines), ("paragraph", batch.paragraphs)):
            repeated = pieces.repeated
            metrics[f"repeated_{name}s"] = share(pieces.per_document(repeated), pieces.counts)
            metrics[f"repeated_{name}_chars"] = share(
                pieces.per_document(repeated * pieces.chars), batch.chars
            )
        return metrics | ngram_shares(batch.words, batch.chars, batch.letters_per_word)


def ngram_shares(words: Spans, chars: Ints, letters: Ints) -> dict[str, Values]:
    """Shares of the documents' `chars` in `frequent_<n>gram` and `repeated_<n>gram`, [documents] each.

    letters [documents]: number of `words` that form one word (above 1 in scripts without spaces).
    """
    chars_before = np.append(0, np.cumsum(words.chars))
    spaces_too = np.append(0, np.cumsum(words.chars + (letters == 1)[words.document]))
    measured = dict.fromkeys(_FREQUENT, ("frequent", _frequent, spaces_too))
    measured |= dict.fromkeys(_REPEATED, ("repeated", _covered, chars_before))
    shares = {f"{name}_{n}gram": np.zeros(len(chars)) for n, (name, *_) in measured.items()}
    for size, starts, counts in repeated_ngrams(words, letters * _REPEATED[-1]):
        for each in np.unique(letters):
            if size % each == 0 and size // each in measured:
                name, count_chars, before = measured[size // each]
                shares_of_size = count_chars(words, before, size, starts, counts) / np.maximum(chars, 1)
                np.copyto(shares[f"{name}_{size // each}gram"], shares_of_size, where=letters == each)
    return shares


def repeated_ngrams(words: Spans, longest: Ints) -> Iterator[tuple[int, Ints, Ints]]:
    """For n = 2, 3, ...: first words of all n-grams that occur more than once in their document, equal ones
    adjacent and earliest first; and the size of each group. `longest` [documents]: the last n for each.

    Both ends of a longer repeated n-gram are repeated themselves, so few candidates remain as n grows.
    """
    at = np.flatnonzero(words.document[1:] == words.document[:-1])
    key = words.keys[at]
    for n in range(2, int(longest.max(initial=0)) + 1):
        key = longer(key, words.keys[at + n - 1])
        order, first = groups(key)
        counts = np.diff(np.append(first, len(order)))
        starts = at[order[np.repeat(counts > 1, counts)]]
        yield n, starts, counts[counts > 1]
        repeated = np.zeros(len(words.start) + 1, dtype=bool)
        repeated[starts] = True
        left = np.flatnonzero(repeated[at] & repeated[at + 1] & (longest[words.document[at]] > n))
        at, key = at[left], key[left]


def _frequent(words: Spans, before: Ints, n: int, starts: Ints, counts: Ints) -> Values:
    """[documents]: characters in the most frequent n-gram, with spaces; ties go to the longest."""
    leader = starts[np.cumsum(counts) - counts]
    last = leader + n - 1
    size = before[last] - before[leader] + words.chars[last]
    most = np.zeros(len(words.counts), np.int64)
    np.maximum.at(most, words.document[leader], counts << 32 | size)
    return ((most >> 32) * (most & 0xFFFFFFFF)).astype(np.float64)


def _covered(words: Spans, before: Ints, n: int, starts: Ints, counts: Ints) -> Values:
    """[documents]: characters of words in n-grams that repeat an earlier one."""
    later = np.ones(len(starts), dtype=bool)
    later[np.cumsum(counts) - counts] = False
    at = np.sort(starts[later])
    new = np.maximum(at, np.append(0, at[:-1] + n)[: len(at)])
    covered = np.bincount(words.document[at], before[at + n] - before[new], minlength=len(words.counts))
    return covered.astype(np.float64)
