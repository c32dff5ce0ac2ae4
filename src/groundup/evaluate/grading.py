"""Scores of a text answer against a reference.

in:  an answer, the reference answer, and names that a right answer contains
out: chrf (0 to 100); names: fraction of the names in the answer; exact: 1 if it equals the reference, else 0
"""

import re
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
