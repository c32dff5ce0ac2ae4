"""Verifier `regex`: the response matches a regular expression.

in:  a response, a pattern
out: 1 where the pattern matches, else 0; with a group named `answer`, 1 where that group also equals the reference
"""

import re
from typing import Any

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from groundup.core.recipe import Recipe
from groundup.evaluate.verifiers import Score

ANSWER = "answer"
"""Name of the group that is compared with the reference."""


class Regex(Recipe):
    """1 for a response that matches a regular expression."""

    pattern: str = Field(
        default=r"\S",
        description="regular expression (Python's re); a group (?P<answer>...) must also equal the reference",
    )
    whole: bool = Field(default=False, description="whether the pattern must match the whole response")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: Any) -> Any:
        try:
            re.compile(value)
        except re.error as error:
            raise PydanticCustomError(
                "pattern", "is no regular expression: {error}", {"error": str(error)}
            ) from None
        return value

    def score(self, prompt: str, response: str, reference: str) -> Score:
        """See `Verifier`."""
        pattern = re.compile(self.pattern)
        match = pattern.fullmatch(response.strip()) if self.whole else pattern.search(response)
        if match is None:
            return Score(0.0)
        if ANSWER not in pattern.groupindex:
            return Score(1.0)
        return Score(float((match[ANSWER] or "").split() == reference.split()))
