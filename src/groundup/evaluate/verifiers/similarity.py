"""Verifier `similarity`: how similar the response is to the reference.

in:  a response, its reference
out: chrF (see `evaluate/chrf.py`) divided by 100, or 1 and 0 above and below a threshold
"""

from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.evaluate.chrf import chrf
from groundup.evaluate.verifiers import Score


class Similarity(Recipe):
    """Similarity of a response and its reference by character n-grams (chrF), from 0 to 1."""

    threshold: float = Field(
        default=0.0, ge=0, le=1, description="score from which a response is right (1); 0 = the score itself"
    )

    def score(self, prompt: str, response: str, reference: str) -> Score:
        """See `Verifier`."""
        value = chrf(response, reference) / 100
        return Score(float(value >= self.threshold) if self.threshold else value)
