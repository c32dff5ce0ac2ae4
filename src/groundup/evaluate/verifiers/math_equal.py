r"""Verifier `math_equal`: the response's final number equals the reference's.

in:  a response and its reference: integers, decimals, thousands separators, percentages, fractions, LaTeX
out: 1 where the two final answers are the same number, or the same text where they are no numbers; else 0

The final answer is what stands in the last \boxed{...}, else after the last `####`, else the last number of the text.
Numbers are compared as exact fractions: 0.5 equals \frac{1}{2}, and 0.333 does not equal 1/3.
"""

import re
from fractions import Fraction

from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.evaluate.verifiers import Score

MAX_DIGITS = 400
"""Most characters of a number: longer ones are compared as text, because exact arithmetic with them is slow."""
_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d)\.(?!\d))?(?:[eE][-+]?\d{1,3})?"
_FRACTION = re.compile(rf"({_NUMBER})\s*/\s*({_NUMBER})")
_LATEX_FRACTION = re.compile(r"([-+]?)\s*\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_LAST = re.compile(r"[-+]?(?:\d[\d,]*)?\.?\d+(?:[eE][-+]?\d{1,3})?(?:\s*/\s*[-+]?\d+(?:\.\d+)?)?\s*(?:\\?%)?")
_NOISE = re.compile(r"\\(?:left|right|,|;|!|text\{[^{}]*\}|mathrm\{[^{}]*\})|[$\s]")


class MathEqual(Recipe):
    """1 for a response whose final number equals the reference's."""

    tolerance: float = Field(
        default=0.0, ge=0, description="largest relative difference of two numbers that count as equal"
    )
    last_number: bool = Field(
        default=True,
        description="whether the last number of a response without \\boxed{} or #### is its final answer",
    )

    def score(self, prompt: str, response: str, reference: str) -> Score:
        """See `Verifier`."""
        answer, expected = self._final(response), self._final(reference) or reference.strip()
        if answer is None or not expected:
            return Score(0.0)
        first, second = to_number(answer), to_number(expected)
        if first is None or second is None:
            return Score(float(_NOISE.sub("", answer) == _NOISE.sub("", expected)))
        return Score(float(abs(first - second) <= Fraction(self.tolerance) * abs(second)))

    def _final(self, text: str) -> str | None:
        """The final answer of a text; None where it has none."""
        boxed = last_boxed(text)
        if boxed is not None:
            return boxed
        if "####" in text:
            return text.rsplit("####", 1)[1].strip()
        if to_number(text) is not None:
            return text
        numbers = _LAST.findall(text) if self.last_number else []
        return numbers[-1] if numbers else None


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...} whose braces are closed; None without one."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for at in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[begin:at]
    return None


def to_number(text: str) -> Fraction | None:
    """A text as an exact number; None where it is none."""
    text = _NOISE.sub("", text)
    if not text or len(text) > MAX_DIGITS:
        return None
    percent = text.endswith("%")
    text = text.removesuffix("%").removesuffix("\\")
    latex = _LATEX_FRACTION.fullmatch(text)
    if latex:
        text = f"{latex[1]}{latex[2]}/{latex[3]}" if latex[2][:1] not in "+-" else f"{latex[2]}/{latex[3]}"
    fraction = _FRACTION.fullmatch(text)
    parts = [_decimal(part) for part in (fraction.groups() if fraction else (text,))]
    numbers = [part for part in parts if part is not None]
    if len(numbers) < len(parts) or (len(numbers) == 2 and numbers[1] == 0):
        return None
    value = numbers[0] / numbers[1] if len(numbers) == 2 else numbers[0]
    return value / 100 if percent else value


def _decimal(text: str) -> Fraction | None:
    if not re.search(r"\d", text) or not re.fullmatch(_NUMBER, text):
        return None
    return Fraction(text.replace(",", "").removesuffix("."))
