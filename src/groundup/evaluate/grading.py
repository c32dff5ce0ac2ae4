"""Scores of a text answer against a reference.

in:  an answer, the reference answer, and names that a right answer contains
out: chrf (0 to 100); names: fraction of the names in the answer; exact: 1 if it equals the reference, else 0;
     new_words: F1 of the words that are not in the question
"""

import re
from collections import Counter
from collections.abc import Sequence

from groundup.evaluate.chrf import chrf

TEXT_METRICS = ("chrf", "exact", "names")
"""The scores that `grade_text` gives."""
_WORD = re.compile(r"\w+")


def grade_text(answer: str, reference: str, names: Sequence[str] = ()) -> dict[str, float]:
    """Scores of one answer; `names` is absent without names."""
    scores = {"chrf": chrf(answer, reference), "exact": float(answer.split() == reference.split())}
    if names:
        words = set(_WORD.findall(answer))
        scores["names"] = sum(name in words for name in names) / len(names)
    return scores


def new_words_f1(answer: str, reference: str, question: str) -> float:
    """F1 (0 to 1) of the words of answer and reference, without those of the question: what the question does not give.

    1 where the reference has no such word and the answer adds none, as in SQuAD (arXiv:1606.05250).
    """
    known = set(_WORD.findall(question.lower()))
    given, wanted = (
        Counter(word for word in _WORD.findall(text.lower()) if word not in known)
        for text in (answer, reference)
    )
    if not given or not wanted:
        return float(given == wanted)
    shared = (given & wanted).total()
    return 2 * shared / (given.total() + wanted.total())
