"""The marks that any task about text gives.

in:  an example and an answer
out: chrf (0 to 100), names: share of the example's names in the answer, exact: 1 if it is the true answer
"""

import re

from groundup.evaluate.chrf import chrf
from groundup.evaluate.tasks import Example

_WORD = re.compile(r"\w+")


def grade_text(example: Example, answer: str) -> dict[str, float]:
    """Marks of one answer; `names` is left out where the example has none."""
    marks = {"chrf": chrf(answer, example.answer), "exact": float(answer.split() == example.answer.split())}
    if example.names:
        said = set(_WORD.findall(answer))
        marks["names"] = sum(name in said for name in example.names) / len(example.names)
    return marks
