"""Synthetic PII: what is planted, and what counts as redacted."""

from collections import Counter

import numpy as np
import pytest

from groundup.doctor.synthetic_pii import EXCERPT, PlantedTexts, SyntheticPii, plant, recall
from groundup.text.batch import DocumentBatch
from groundup.text.curate.steps.privacy import Privacy
from groundup.text.curate.types import FilterResult

TEXTS = [
    "The lighthouse keeper wrote a letter every week. " * 100,
    "Short text.",
    "海边的灯塔每天晚上都会亮起来。" * 40,
]


class FixedResult:
    """A step with a fixed result."""

    def __init__(self, reason: str | None = None, text: str | None = None) -> None:
        self.reason, self.text = reason, text

    def apply(self, batch: DocumentBatch) -> FilterResult:
        none = [None] * batch.rows
        return FilterResult([self.reason] * batch.rows, none, none, text=[self.text] * batch.rows)


class Nothing:
    def apply(self, batch: DocumentBatch) -> FilterResult:
        none = [None] * batch.rows
        return FilterResult(none, none, none)


def test_the_default_step_redacts_98_percent_of_every_kind() -> None:
    recalls = recall(Privacy(), plant(TEXTS, seed=11, per_kind=250))
    assert min(recalls.values()) >= 0.98, recalls


def test_every_planted_value_is_at_its_position() -> None:
    planted = plant(TEXTS, seed=3, per_kind=20)
    assert Counter(item.kind for item in planted.pii) == dict.fromkeys(recall(Nothing(), planted), 20)
    for text, item in zip(planted.texts, planted.pii, strict=True):
        assert text[item.start :].startswith(item.value)
        assert len(text) < EXCERPT + len(item.value) + 200


def test_the_same_seed_plants_the_same() -> None:
    assert plant(TEXTS, seed=1, per_kind=5) == plant(TEXTS, seed=1, per_kind=5)
    assert plant(TEXTS, seed=1, per_kind=5).pii != plant(TEXTS, seed=2, per_kind=5).pii


def test_values_can_be_planted_without_texts() -> None:
    assert len(plant([], seed=1, per_kind=3).texts) == len(plant([""], seed=1, per_kind=3).texts) == 24


@pytest.mark.parametrize(
    ("step", "share"),
    [
        (Nothing(), 0.0),
        (FixedResult("dropped"), 1.0),
        (FixedResult("redacted", "call <PHONE> now"), 1.0),
        (FixedResult("redacted", "call <PHONE>0958 now"), 1.0),
        (FixedResult("redacted", "call <PHONE> 0958 now"), 0.0),
        (FixedResult("redacted", "call +44 20 <PHONE>"), 0.0),
    ],
)
def test_a_value_is_redacted_when_no_five_characters_of_it_are_left(
    step: FixedResult | Nothing, share: float
) -> None:
    planted = PlantedTexts(["call +44 20 7946 0958 now"], [SyntheticPii("phone", "+44 20 7946 0958", 5)])
    assert recall(step, planted) == {"phone": share}


def test_a_step_for_fewer_kinds_redacts_fewer_kinds() -> None:
    recalls = recall(Privacy(kinds=("email",)), plant(TEXTS, seed=5, per_kind=40))
    assert recalls["email"] == 1.0 and recalls["iban"] == 0.0
    assert np.isfinite(list(recalls.values())).all()
