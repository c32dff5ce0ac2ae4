"""Step `model_filter`: filters documents by a classifier's score.

in:  documents, and the artifact of text/curate/classifier.py named `classifier` in the blueprint
out: every document's score under the classifier's name; drops with `low_<name>`, `high_<name>`

Model-based filtering as in DCLM (Li et al. 2024, https://arxiv.org/abs/2406.11794): `keep_share = 0.1` keeps
documents that score like the top tenth of the classifier's negative examples, which are a random sample of the crawl
there. With harmful or adult text as positive examples, `max_score` removes such text.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from groundup.core.errors import BlueprintError, DataError
from groundup.core.recipe import Recipe
from groundup.text import fasttext_model
from groundup.text.batch import DocumentBatch
from groundup.text.curate.calibration import Calibration
from groundup.text.curate.classifier import CALIBRATION, MODEL, score
from groundup.text.curate.types import FilterResult, Rule, apply_rules


class ModelFilter(Recipe):
    """Bounds on the probability of the positive class. Without bounds the score is only recorded."""

    classifier: str = Field(default="quality", description="name of the classifier in the blueprint")
    min_score: float | None = Field(default=None, ge=0, le=1, description="drop documents with a lower score")
    max_score: float | None = Field(
        default=None, ge=0, le=1, description="drop documents with a higher score"
    )
    keep_share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="min_score such that this share of the negative examples would pass",
    )
    code: bool = Field(default=False, description="score source code too")

    @model_validator(mode="after")
    def _one_lower_bound(self) -> "ModelFilter":
        if self.min_score is not None and self.keep_share is not None:
            raise ValueError("min_score and keep_share both say what to keep: give one of them")
        return self

    def load(self, model: Path) -> "LoadedModelFilter":
        """The step with the classifier in `model`. Raises DataError if it can't resolve `keep_share`."""
        calibration = Calibration(**json.loads((model / CALIBRATION).read_text(encoding="utf-8")))
        low = self.min_score
        if self.keep_share is not None:
            least = math.ceil(1 / self.keep_share)
            if calibration.negatives < least:
                raise DataError(
                    f"model_filter: keep_share = {self.keep_share} needs {least:,} held-out negative examples or more, "
                    f"but classifier {self.classifier!r} has {calibration.negatives}. "
                    "Give the classifier more negative examples, or set min_score."
                )
            low = calibration.at_share(self.keep_share)
        return LoadedModelFilter(self, model / MODEL, calibration, self._rules(low))

    def apply(self, batch: DocumentBatch) -> FilterResult:
        """Raises BlueprintError: only a loaded step can score documents."""
        raise BlueprintError(f"model_filter: classifier {self.classifier!r} isn't trained in this blueprint")

    def _rules(self, low: float | None) -> tuple[Rule, ...]:
        rules = []
        if low is not None:
            rules.append(Rule(f"low_{self.classifier}", self.classifier, at_least=low))
        if self.max_score is not None:
            rules.append(Rule(f"high_{self.classifier}", self.classifier, at_most=self.max_score))
        return tuple(rules)


@dataclass(frozen=True)
class LoadedModelFilter:
    """A step with its classifier; each process loads the model once."""

    step: ModelFilter
    model: Path
    calibration: Calibration
    bounds: tuple[Rule, ...]

    def rules(self) -> tuple[Rule, ...]:
        """Rules on the score."""
        return self.bounds

    def apply(self, batch: DocumentBatch) -> FilterResult:
        """Score documents and apply the rules."""
        name = self.step.classifier
        rows = np.flatnonzero(~batch.is_code | self.step.code)
        scores = np.full(batch.rows, np.nan)
        texts = fasttext_model.tokens(batch.text.take(pa.array(rows)))
        scores[rows] = self.calibration(score(fasttext_model.load(self.model), texts))
        return apply_rules({name: scores}, self.bounds, batch.rows)
