"""Scores of a text answer against a reference.

in:  an answer, the true answer, and names that a right answer must hold
out: chrf (0 to 100), names: fraction of the names in the answer, exact: 1 if it is the true answer
"""

import re
from collections.abc import Sequence

from groundup.evaluate.chrf import chrf

_WORD = re.compile(r"\w+")


def grade_text(answer: str, reference: str, names: Sequence[str] = ()) -> dict[str, float]:
    """Scores of one answer; `names` is left out where there are none."""
    scores = {"chrf": chrf(answer, reference), "exact": float(answer.split() == reference.split())}
    if names:
        words = set(_WORD.findall(answer))
        scores["names"] = sum(name in words for name in names) / len(names)
    return scores
