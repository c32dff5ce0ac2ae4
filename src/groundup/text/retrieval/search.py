"""BM25 search among passages or other texts.

in:  texts, perhaps with names; a query
out: the indices of the texts that match best, best first

Robertson and Zaragoza 2009 (https://doi.org/10.1561/1500000019), computed by bm25s. Words are split at dots,
underscores and case changes; a dotted name is also a term of its own, and the words of a text's name count three
times.
"""

import re
from collections.abc import Sequence

import bm25s
import numpy as np

from groundup.text.sentences import UNSPACED_LETTER

K1, B = 1.2, 0.6
NAME_WEIGHT = 2
"""How often a text's name is indexed beside the text, which contains it once."""
_IDENTIFIER = re.compile(r"[^\W\d][\w.]*\w|[^\W\d]|\d+")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def search_terms(text: str) -> list[str]:
    """The terms of a text: lower-case words, pairs of letters where a script writes no spaces, and `=dotted.name`."""
    terms = []
    for identifier in _IDENTIFIER.findall(text):
        if "." in identifier or "_" in identifier:
            terms.append(f"={identifier.lower()}")
        for part in re.split(r"[._]+", identifier):
            terms += _words(part)
    return terms


def _words(part: str) -> list[str]:
    if part.isascii():
        return [word.lower() for word in _PART.findall(part)]
    if UNSPACED_LETTER.search(part):
        return [part[at : at + 2] for at in range(max(1, len(part) - 1))]
    return [part.lower()]


class SearchIndex:
    """An index of texts."""

    def __init__(self, texts: Sequence[str], names: Sequence[str] | None = None) -> None:
        names = names or [""] * len(texts)
        documents = [
            search_terms(text) + NAME_WEIGHT * search_terms(name)
            for text, name in zip(texts, names, strict=True)
        ]
        self.size = len(documents)
        self._bm25 = bm25s.BM25(k1=K1, b=B)
        if any(documents):
            self._bm25.index(documents, show_progress=False)
        else:
            self.size = 0

    def scores(self, query: str) -> np.ndarray:
        """BM25 of every text for a query."""
        terms = self._bm25.get_tokens_ids(list(dict.fromkeys(search_terms(query)))) if self.size else []
        if not terms:
            return np.zeros(self.size, dtype=np.float32)
        scores: np.ndarray = self._bm25.get_scores_from_ids(terms)
        return scores

    def search(self, query: str, count: int) -> list[int]:
        """The indices of the best texts, best first; ties in their order; none without a common term."""
        scores = self.scores(query)
        best = np.argsort(-scores, kind="stable")[:count]
        return [int(index) for index in best if scores[index] > 0]
