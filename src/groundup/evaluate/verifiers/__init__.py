"""Registry of verifiers: programs that score a response, so that no reward model is needed. One file per verifier.

in:  a prompt, the response, a reference answer
out: Score: a number, 1 for a right response and 0 for a wrong one, and the scores of its parts

A verifier is a pure function of its arguments. It never raises for a response: a response that it can't read scores 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Score:
    """The score of a response. parts: name -> score, for the log of a verifier that combines several."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)


class Verifier(Protocol):
    """Scores responses."""

    def score(self, prompt: str, response: str, reference: str) -> Score:
        """The score of one response. reference: the right answer; empty where there is none."""
        ...
