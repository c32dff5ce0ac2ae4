"""Training a classifier, against textbook figures, two made-up vocabularies and human labels."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from classifier_helpers import LAND, SEA, batch, sea_and_land, sentences, train, write

from groundup.core.errors import DataError
from groundup.core.store import MANIFEST
from groundup.text import fasttext_model
from groundup.text.curate import calibration
from groundup.text.curate.classifier import Classifier, external_digest
from groundup.text.curate.steps.model_filter import ModelFilter

Trained = Callable[..., tuple[Path, dict[str, Any]]]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, tuple[str, ...]]:
    return sea_and_land(tmp_path)


@pytest.fixture
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return lambda **settings: train(tmp_path_factory.mktemp("classifier"), **settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_auc_and_average_precision_equal_the_textbook() -> None:
    random_numbers = np.random.default_rng(0)
    truth = random_numbers.random(200) < 0.3
    scores = (truth * 0.3 + random_numbers.random(200)).round(1)  # many ties
    pairs = [(a > b) + (a == b) / 2 for a in scores[truth] for b in scores[~truth]]
    assert calibration.roc_auc(truth, scores) == pytest.approx(np.mean(pairs))
    area, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        said = calibration.at_threshold(truth, scores, threshold)
        area += (said["recall"] - recall_before) * said["precision"]
        recall_before = said["recall"]
    assert calibration.average_precision(truth, scores) == pytest.approx(area)


def test_calibration_finds_the_map_that_made_the_scores_wrong() -> None:
    random_numbers = np.random.default_rng(1)
    logits = random_numbers.normal(0, 2, 40_000)
    truth = random_numbers.random(len(logits)) < 1 / (1 + np.exp(-logits))
    overconfident = 1 / (1 + np.exp(-(3 * logits + 1)))
    found = calibration.calibrate(truth, overconfident)
    assert found.slope == pytest.approx(1 / 3, rel=0.05)
    assert found.intercept == pytest.approx(-1 / 3, abs=0.05)
    assert calibration.calibration_error(truth, overconfident) > 0.1
    assert calibration.calibration_error(truth, found(overconfident)) < 0.01
    assert (found(overconfident[~truth]) >= found.at_share(0.1)).mean() == pytest.approx(0.1, abs=0.001)


def test_the_same_examples_give_the_same_bytes_however_they_lie_in_files(
    tmp_path: Path, files: dict[str, tuple[str, ...]], trained: Trained
) -> None:
    once, _ = trained(**files)
    again, _ = trained(**files)
    assert contents(once) == contents(again) and set(contents(once)) == {"model.bin", "calibration.json"}
    shuffled = random.Random(0).sample(sentences(SEA, 60, 1), 60)
    spread = (
        write(tmp_path / "b.jsonl", shuffled[:20]),
        write(tmp_path / "a.jsonl", shuffled[20:] + shuffled[:3]),
    )
    assert contents(trained(positive=spread, negative=files["negative"])[0]) == contents(once)
    other_seed, _ = trained(**files, seed=1)
    assert contents(other_seed)["model.bin"] != contents(once)["model.bin"]


def test_labelled_files_are_as_good_as_two_folders(
    tmp_path: Path, files: dict[str, tuple[str, ...]], trained: Trained
) -> None:
    both = (
        write(tmp_path / "all-1.jsonl", sentences(SEA, 60, 1), kind=1),
        write(tmp_path / "all-0.jsonl", sentences(LAND, 50, 2), kind=0),
        write(tmp_path / "none.jsonl", ["nobody knows what this is"]),
    )
    folder, metrics = trained(labelled=both, label_field="kind")
    assert contents(folder) == contents(trained(**files)[0])
    assert metrics["rejected"] == {"no_label": 1}


def test_metrics_count_examples_and_measure_on_those_held_out(
    tmp_path: Path, files: dict[str, tuple[str, ...]], trained: Trained
) -> None:
    undecided = write(tmp_path / "both.jsonl", ["seen on land and at sea", "seen on land and at sea"])
    _, metrics = trained(positive=(*files["positive"], undecided), negative=(*files["negative"], undecided))
    assert metrics["examples"] == {"read_positive": 62, "read_negative": 52, "in_both_classes": 1,
                                   "positive": 60, "negative": 50}  # fmt: skip
    held_out = metrics["held_out"]
    assert held_out["auc"] == held_out["average_precision"] == held_out["accuracy"] == held_out["f1"] == 1
    assert 0.5 <= held_out["majority_baseline"] < 0.8
    assert sum(row["documents"] for row in held_out["reliability"]) == held_out["documents"] > 15


def test_more_than_the_most_are_sampled(files: dict[str, tuple[str, ...]], trained: Trained) -> None:
    _, metrics = trained(**files, max_documents=40)
    assert (metrics["examples"]["positive"], metrics["examples"]["negative"]) == (40, 40)


def test_text_cannot_pass_for_a_label_or_an_end() -> None:
    sly = pa.array(["__label__negative Sea</s>\nTide,\u00a0gull 海鸥 x_y"])
    tokens = fasttext_model.tokens(sly)[0].split()
    assert tokens == ["_", "_", "label", "_", "_", "negative", "sea", "<", "/", "s", ">", "tide", ",", "gull",
                      "海", "鸥", "x", "_", "y"]  # fmt: skip


def test_what_cannot_be_learned_from_is_an_error_that_says_why(
    tmp_path: Path, files: dict[str, tuple[str, ...]], trained: Trained
) -> None:
    def refused(**settings: Any) -> str:
        with pytest.raises(DataError, match="classifier 'quality'") as caught:
            trained(**settings)
        return str(caught.value)

    positive, negative = files["positive"], files["negative"]
    few = write(tmp_path / "few.jsonl", ["one gull", "two gulls", "two gulls"])
    assert "2 different positive examples; 10 are needed" in refused(positive=(few,), negative=negative)
    assert f"3 read from positive = ['{few}']" in refused(positive=(few,), negative=negative)
    assert "0 different negative examples" in refused(positive=positive)
    assert "no files are given" in refused(positive=positive)
    empty = write(tmp_path / "empty.jsonl", [])
    assert "rejected: empty (1)" in refused(positive=(empty,), negative=negative)
    assert "60 left out because they are in both classes" in refused(positive=positive, negative=positive)
    labelled = write(tmp_path / "good.jsonl", sentences(SEA, 20, 4), label="good")
    assert "labels met: good (20), positive_label is '1'" in refused(labelled=(labelled,))
    assert "rejected: no_label (60)" in refused(labelled=positive)
    assert "fastText says: Encountered NaN. Try a smaller lr" in refused(**files, lr=1e9)
    with pytest.raises(DataError, match=r"classifier 'quality': positive paths: '.*' doesn't exist"):
        external_digest(Classifier(positive=(str(tmp_path / "nowhere.jsonl"),)))


def test_bytes_that_are_no_utf8_are_read_or_kept_aside(
    tmp_path: Path, files: dict[str, tuple[str, ...]], trained: Trained
) -> None:
    (tmp_path / "latin.txt").write_bytes("Der Müller fährt über die Brücke zur Mühle. ".encode("latin-1") * 3)
    (tmp_path / "noise.txt").write_bytes(random.Random(0).randbytes(4000))
    more = (*files["negative"], str(tmp_path / "latin.txt"), str(tmp_path / "noise.txt"))
    _, metrics = trained(positive=files["positive"], negative=more)
    assert metrics["examples"]["negative"] == 51 and sum(metrics["rejected"].values()) == 1


def test_ten_examples_of_each_class_are_enough(tmp_path: Path, trained: Trained) -> None:
    few = {kind: (write(tmp_path / f"{kind}.jsonl", sentences(words, 10, 5)),)
           for kind, words in (("positive", SEA), ("negative", LAND))}  # fmt: skip
    _, metrics = trained(**few)
    assert metrics["examples"]["positive"] == metrics["examples"]["negative"] == 10


def test_few_examples_are_held_out_in_turn_and_many_only_once(tmp_path: Path, trained: Trained) -> None:
    def build(number: int) -> dict[str, Any]:
        given = {kind: (write(tmp_path / f"{kind}.jsonl", sentences(words, number, 6)),)
                 for kind, words in (("positive", SEA), ("negative", LAND))}  # fmt: skip
        return dict(trained(**given, held_out=0.5, epochs=1)[1]["held_out"])

    assert (build(50)["models"], build(50)["documents"]) == (2, 100)
    many = build(1100)
    assert many["models"] == 1 and 1000 <= many["documents"] <= 1200


def test_passes_follow_the_number_of_examples() -> None:
    assert [Classifier().passes(n) for n in (10, 4000, 10_000, 20_000, 400_000)] == [25, 25, 10, 5, 5]
    assert Classifier(epochs=3).passes(10) == 3


def test_an_earlier_corpus_can_be_the_examples(
    tmp_path: Path, ingested: Callable[..., Any], curated: Callable[..., Any], trained: Trained
) -> None:
    (tmp_path / "tales").mkdir()
    for n, text in enumerate(sentences(SEA, 20, 7)):
        (tmp_path / "tales" / f"{n}.txt").write_text(text)
    corpus = curated(ingested(tmp_path / "tales"))
    (corpus.path / MANIFEST).write_text("{}")
    land = write(tmp_path / "land.jsonl", sentences(LAND, 20, 8))
    _, metrics = trained(positive=(str(corpus.path),), negative=(land,))
    assert metrics["examples"]["read_positive"] == 20 and metrics["rejected"] == {}


def test_a_module_that_trains_at_random_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fasttext_model, "is_installed", lambda name: False)
    assert fasttext_model.binding().load_model
    with pytest.raises(DataError, match=r"train the same model twice.*pip install .* fasttext-community"):
        fasttext_model.binding(to_train=True)


def test_contents_make_the_fingerprint_not_places(tmp_path: Path, files: dict[str, tuple[str, ...]]) -> None:
    before = external_digest(Classifier(**files))
    (tmp_path / "moved").mkdir()
    moved = Path(files["positive"][0]).rename(tmp_path / "moved" / "sea.jsonl")
    assert external_digest(Classifier(positive=(str(moved),), negative=files["negative"])) == before
    write(moved, sentences(SEA, 61, 1))
    assert external_digest(Classifier(positive=(str(moved),), negative=files["negative"])) != before


def test_human_labels_are_learned_better_than_the_majority(
    tmp_path: Path, shared_data: Path, trained: Trained
) -> None:
    with gzip.open(shared_data / "web/quality/dclm_majority_data.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    learn, judge = rows[::2], rows[1::2]
    for label in (0, 1):
        write(tmp_path / f"{label}.jsonl", [row["text"] for row in learn if row["label"] == label])
    settings = {"held_out": 0.15, "dim": 8, "bucket": 100_000}
    folder, _ = trained(
        positive=(str(tmp_path / "1.jsonl"),), negative=(str(tmp_path / "0.jsonl"),), **settings
    )
    said = ModelFilter(min_score=0.5).load(folder).apply(batch(*(row["text"] for row in judge)))
    truth = np.array([row["label"] == 1 for row in judge])
    kept = np.array([reason is None for reason in said.reason])
    majority = max(truth.mean(), 1 - truth.mean())
    assert (kept == truth).mean() > majority + 0.08
    assert calibration.roc_auc(truth, said.metrics["quality"]) > 0.75
