"""Step: documents that mostly repeat themselves.

in:  documents
out: drops with `repeated_lines`, `repeated_line_chars`, `repeated_paragraphs`, `repeated_paragraph_chars`,
     `repeated_2gram` ... `repeated_4gram`

The rules and thresholds of Gopher (Rae et al. 2021, https://arxiv.org/abs/2112.11446, table A1), with three
differences. Short texts are not measured: a pair of words said twice is a fifth of a sentence (Gopher drops what
has fewer than 50 words anyway). Lines and words without a letter or digit (rulers, borders of tables, closing
brackets) don't count. And source code repeats itself by nature (`return NotImplemented`): rules made for web pages
would drop contextlib.py and 30 more modules of Python's own library. A document whose path ends like code is
measured by the characters in repeated lines alone, with a threshold of its own.
"""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.text.documents import strings
from groundup.text.steps import WORD, Rules, Verdicts

CODE = re.compile(
    r"\.(pyi?|[ch]|cc|[ch]pp|cu|java|[jt]sx?|go|rs|rb|php|sh|sql|swift|kt|scala|cs|lua|r|jl|pl|hs|mli?|exs?|erl|clj"
    r"|el|lisp|css|html?|xml|json|toml|ya?ml|cfg|ini)(#\w+)*$",
    re.IGNORECASE,
)
"""Paths of source code, also of its parts (`big.py#part2`)."""
_CONTENT = re.compile(r"\w")


class Repetition(Recipe):
    """Largest shares of a document that may be repetition."""

    min_words: int = Field(default=50, ge=0, description="prose of fewer words is not measured")
    max_lines: float = Field(
        default=0.30, ge=0, le=1, description="lines that repeat an earlier one, per line"
    )
    max_line_chars: float = Field(default=0.20, ge=0, le=1, description="characters in such lines")
    max_paragraphs: float = Field(
        default=0.30, ge=0, le=1, description="paragraphs that repeat an earlier one"
    )
    max_paragraph_chars: float = Field(default=0.20, ge=0, le=1, description="characters in such paragraphs")
    max_code_line_chars: float = Field(default=0.50, ge=0, le=1, description="max_line_chars for source code")
    max_2gram: float = Field(
        default=0.20, ge=0, le=1, description="characters in the most frequent word pair"
    )
    max_3gram: float = Field(default=0.18, ge=0, le=1, description="the same for three words")
    max_4gram: float = Field(default=0.16, ge=0, le=1, description="the same for four words")

    def judge(self, documents: pa.Table) -> Verdicts:
        """Measure, then compare: code by one rule, prose by all."""
        is_code = np.array([CODE.search(path) is not None for path in strings(documents, "path")], dtype=bool)
        words = pc.count_substring_regex(documents.column("text"), WORD).to_numpy()
        is_prose = ~is_code & (words >= self.min_words)
        rules = Rules(documents.num_rows)
        lines = _repeated(documents, "\n")
        rules.broken("repeated_line_chars", (lines[:, 1] * is_code).tolist(), self.max_code_line_chars)
        lines = lines * is_prose[:, None]
        rules.broken("repeated_lines", lines[:, 0].tolist(), self.max_lines)
        rules.broken("repeated_line_chars", lines[:, 1].tolist(), self.max_line_chars)
        paragraphs = _repeated(documents, "\n\n") * is_prose[:, None]
        rules.broken("repeated_paragraphs", paragraphs[:, 0].tolist(), self.max_paragraphs)
        rules.broken("repeated_paragraph_chars", paragraphs[:, 1].tolist(), self.max_paragraph_chars)
        texts: Any = documents.column("text").combine_chunks()
        grams = top_ngram_shares(pc.if_else(pa.array(is_prose, pa.bool_()), texts, ""), (2, 3, 4))
        for n, threshold in ((2, self.max_2gram), (3, self.max_3gram), (4, self.max_4gram)):
            rules.broken(f"repeated_{n}gram", grams[n], threshold)
        return rules.verdicts()


def repeated_share(parts: list[str]) -> tuple[float, float]:
    """The share of `parts` that repeat an earlier one, by count and by characters."""
    if len(parts) < 2:
        return 0.0, 0.0
    unique = set(parts)
    chars = sum(map(len, parts))
    return 1 - len(unique) / len(parts), 1 - sum(map(len, unique)) / chars


def top_ngram_shares(texts: Any, lengths: tuple[int, ...]) -> dict[int, list[float]]:
    """For each n and text: the share of the characters of its words that are in its most frequent n-gram.

    An n-gram that occurs once repeats nothing: 0. Of n-grams equally frequent the longest counts.
    """
    words: Any = pc.utf8_split_whitespace(texts)
    coded: Any = words.flatten().dictionary_encode()
    code: NDArray[np.int64] = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    chars = pc.utf8_length(coded.dictionary).to_numpy(zero_copy_only=False).astype(np.int64)
    content = pc.match_substring_regex(coded.dictionary, r"\pL|\pN").to_numpy(zero_copy_only=False)
    ends = np.cumsum(pc.list_value_length(words).to_numpy(zero_copy_only=False))
    shares: dict[int, list[float]] = {n: [] for n in lengths}
    for document in np.split(code, ends[:-1]) if len(ends) else []:
        document = document[content[document]]
        size = chars[document]
        for n in lengths:
            shares[n].append(_top_share(document, size, n))
    return shares


def _top_share(words: NDArray[np.int64], chars: NDArray[np.int64], n: int) -> float:
    if len(words) < 2 * n:
        return 0.0
    windows = len(words) - n + 1
    # A polynomial hash modulo 2**64: two n-grams of one document practically never agree on it.
    key = np.zeros(windows, dtype=np.uint64)
    size = np.zeros(windows, dtype=np.int64)
    for shift in range(n):
        key = (
            key * np.uint64(0x9E3779B97F4A7C15)
            + words[shift : shift + windows].astype(np.uint64)
            + np.uint64(1)
        )
        size += chars[shift : shift + windows]
    _, first, counts = np.unique(key, return_index=True, return_counts=True)
    most = counts.max()
    if most < 2:
        return 0.0
    return min(1.0, float(most * size[first[counts == most]].max() / chars.sum()))


def _repeated(documents: pa.Table, mark: str) -> NDArray[np.float64]:
    """[documents, 2]: `repeated_share` of the parts of each text between `mark`s."""
    shares = [repeated_share(_parts(text, mark)) for text in strings(documents, "text")]
    return np.array(shares, dtype=np.float64).reshape(-1, 2)


def _parts(text: str, mark: str) -> list[str]:
    return [part.strip() for part in text.split(mark) if _CONTENT.search(part)]
