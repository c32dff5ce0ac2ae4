"""Verifier `weighted_sum`: a weighted sum of other verifiers' scores.

in:  a response, its reference, verifiers with weights
out: the sum, and the score of each verifier for the log
"""

from collections import Counter
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from groundup.core.recipe import Recipe
from groundup.core.registry import Plugin, plugin_name
from groundup.evaluate.verifiers import Score, Verifier


class WeightedSum(Recipe):
    """The weighted sum of several verifiers' scores, each of which is logged."""

    parts: tuple[Annotated[Verifier, Plugin("groundup.evaluate.verifiers")], ...] = Field(
        default=(), description="verifiers whose scores are added"
    )
    weights: tuple[float, ...] = Field(
        default=(), description="weight of each verifier, in the order of `parts`"
    )

    @model_validator(mode="after")
    def _as_many_weights(self) -> Self:
        if len(self.weights) != len(self.parts):
            raise PydanticCustomError(
                "weights",
                "{weights} weights for {parts} parts: give one weight for each part",
                {"weights": len(self.weights), "parts": len(self.parts)},
            )
        return self

    def score(self, prompt: str, response: str, reference: str) -> Score:
        """See `Verifier`."""
        scores = [part.score(prompt, response, reference).value for part in self.parts]
        total = sum(weight * score for weight, score in zip(self.weights, scores, strict=True))
        return Score(total, dict(zip(self._labels(), scores, strict=True)))

    def _labels(self) -> list[str]:
        """The parts' names, numbered where one occurs more than once."""
        names = [plugin_name(part) for part in self.parts if isinstance(part, Recipe)]
        seen: Counter[str] = Counter()
        labels = []
        for name in names:
            seen[name] += 1
            labels.append(name if names.count(name) == 1 else f"{name}_{seen[name]}")
        return labels
