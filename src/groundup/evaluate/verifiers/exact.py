"""Verifier `exact`: the response equals the reference.

in:  a response, its reference
out: 1 where they are equal after the chosen normalisation, else 0
"""

import string

from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.evaluate.verifiers import Score


class Exact(Recipe):
    """1 for a response equal to the reference, apart from white space."""

    ignore_case: bool = Field(default=False, description="whether upper and lower case are the same")
    ignore_punctuation: bool = Field(default=False, description="whether ASCII punctuation is left out")

    def score(self, prompt: str, response: str, reference: str) -> Score:
        """See `Verifier`."""
        return Score(float(self._normalised(response) == self._normalised(reference)))

    def _normalised(self, text: str) -> list[str]:
        if self.ignore_case:
            text = text.casefold()
        if self.ignore_punctuation:
            text = text.translate(str.maketrans("", "", string.punctuation))
        return text.split()
