"""The search: BM25 against its formula, and the terms of names and of scripts without spaces."""

import math
from collections import Counter

import pytest

from groundup.text.retrieval.search import K1, B, SearchIndex, search_terms

TEXTS = ["the cat sat on the mat", "a dog sat", "the dog and the cat and the bird", "fish"]


def bm25(query: str, texts: list[str]) -> list[float]:
    """Robertson and Zaragoza 2009, with the idf of Lucene."""
    documents = [Counter(text.split()) for text in texts]
    mean = sum(item.total() for item in documents) / len(documents)
    scores = []
    for item in documents:
        score = 0.0
        for term in set(query.split()):
            having = sum(term in other for other in documents)
            idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            score += idf * item[term] / (item[term] + K1 * (1 - B + B * item.total() / mean))
        scores.append(score)
    return scores


@pytest.mark.parametrize("query", ["cat", "dog cat", "the bird the bird", "fish sat", "nothing"])
def test_scores_are_bm25s_formula(query: str) -> None:
    assert SearchIndex(TEXTS).scores(query).tolist() == pytest.approx(bm25(query, TEXTS), rel=1e-5)


def test_names_are_split_and_kept_whole() -> None:
    assert search_terms("Does shutil.copyFile2 work?") == [
        "does", "=shutil.copyfile2", "shutil", "copy", "file", "2", "work"]  # fmt: skip
    assert search_terms("Übergang") == ["übergang"]
    assert search_terms("日本語") == ["日本", "本語"]


def test_a_texts_name_outweighs_a_mention() -> None:
    index = SearchIndex(["use fill or dedent here", "removes whitespace"], ["wrap.fill", "wrap.dedent"])
    assert index.search("What does wrap.dedent do?", 2)[0] == 1


def test_texts_without_a_common_term_are_not_found() -> None:
    assert SearchIndex(TEXTS).search("fish", 3) == [3]
    assert SearchIndex(TEXTS).search("?", 3) == []
    assert SearchIndex([]).search("fish", 3) == []
    assert SearchIndex(["..."]).search("fish", 3) == []
