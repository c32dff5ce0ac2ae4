"""Filtering by a trained classifier: bounds, shares, source code, and what is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from classifier_helpers import LAND, SEA, batch, sea_and_land, sentences, train, write
from pydantic import ValidationError

from groundup.core.errors import BlueprintError, DataError
from groundup.text.curate.steps.model_filter import ModelFilter
from groundup.text.curate.types import HasRules, NeedsClassifier, Rule


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    return train(tmp_path_factory.mktemp("classifier"), **sea_and_land(folder))[0]


def test_low_scores_go_and_every_score_is_measured(model: Path) -> None:
    good, bad = sentences(SEA, 1, 8)[0], sentences(LAND, 1, 9)[0]
    step = ModelFilter(min_score=0.5)
    assert isinstance(step, NeedsClassifier)
    loaded = pickle.loads(pickle.dumps(step.load(model)))
    assert isinstance(loaded, HasRules) and loaded.rules() == (Rule("low_quality", "quality", at_least=0.5),)
    said = loaded.apply(batch(good, bad))
    assert said.reason == [None, "low_quality"]
    scores = said.metrics["quality"]
    assert scores[0] > 0.9 and scores[1] < 0.1 and said.value == [None, scores[1]]
    alone = [loaded.apply(batch(text)).metrics["quality"][0] for text in (good, bad)]
    assert alone == scores.tolist()
    assert ModelFilter().load(model).apply(batch(good, bad)).reason == [None, None]
    assert loaded.apply(batch()).reason == []


def test_high_scores_go_under_the_classifiers_own_name(model: Path) -> None:
    good, bad = sentences(SEA, 1, 8)[0], sentences(LAND, 1, 9)[0]
    said = ModelFilter(classifier="toxic", max_score=0.5).load(model).apply(batch(good, bad))
    assert said.reason == ["high_toxic", None] and said.metrics.keys() == {"toxic"}


def test_source_code_passes_unless_asked_for(model: Path) -> None:
    code = batch(sentences(LAND, 1, 9)[0], path="a.py")
    said = ModelFilter(min_score=0.5).load(model).apply(code)
    assert said.reason == [None] and np.isnan(said.metrics["quality"][0])
    assert ModelFilter(min_score=0.5, code=True).load(model).apply(code).reason == ["low_quality"]


def test_a_share_is_kept_of_documents_like_the_negative_examples(tmp_path: Path) -> None:
    def coast(mostly: list[str], number: int, seed: int) -> list[str]:
        return sentences([*mostly, *mostly, *SEA, *LAND], number, seed)

    files = {"positive": (write(tmp_path / "sea.jsonl", coast(SEA, 400, 1)),),
             "negative": (write(tmp_path / "land.jsonl", coast(LAND, 400, 2)),)}  # fmt: skip
    folder, metrics = train(tmp_path / "classifier", **files)
    assert 0.7 < metrics["held_out"]["auc"] < 0.999  # the classes overlap
    said = ModelFilter(keep_share=0.25).load(folder).apply(batch(*coast(LAND, 1000, 3)))
    assert 0.2 < said.reason.count(None) / 1000 < 0.3


def test_a_share_too_small_for_the_negative_examples_is_refused(model: Path) -> None:
    with pytest.raises(DataError, match=r"keep_share = 0.001 needs 1,000 .* has \d+"):
        ModelFilter(keep_share=0.001).load(model)


def test_contradictions_and_missing_classifiers_are_said() -> None:
    with pytest.raises(ValidationError, match="give one of them"):
        ModelFilter(min_score=0.5, keep_share=0.1)
    with pytest.raises(ValidationError, match="nothing can pass"):
        ModelFilter(min_score=0.8, max_score=0.3)
    with pytest.raises(BlueprintError, match="classifier 'quality' isn't trained"):
        ModelFilter().apply(batch("a"))


def test_a_text_without_words_has_a_score(model: Path) -> None:
    scores = ModelFilter().load(model).apply(batch("   ", "\x00", "\u200b")).metrics["quality"]
    assert np.isfinite(scores).all()
