"""Scores beside the rules without a model: clustered intervals and verdicts."""

import pytest

from groundup.evaluate.baselines import prepare_baselines
from groundup.evaluate.comparison import compare
from groundup.evaluate.score import GradedAnswer
from groundup.evaluate.statistics import bootstrap, paired_difference
from groundup.evaluate.tasks import Example
from groundup.evaluate.tasks.passages import Passages
from groundup.evaluate.verdict_text import verdict
from groundup.text.retrieval.retriever import Retriever

TASK = Passages()


def asked(number: int) -> Example:
    return Example(
        f"e{number}", "section", f"d{number // 3}", f"Topic {number}", f'What is "Topic {number}" about?',
        f"It is about the number {number} and what follows from it.", task="passages",
    )  # fmt: skip


def graded(answers: list[str]) -> list[GradedAnswer]:
    examples = [asked(number) for number in range(len(answers))]
    return [
        GradedAnswer(item, answer, TASK.grade(item, answer))
        for item, answer in zip(examples, answers, strict=True)
    ]


def taught() -> list[Example]:
    return [asked(number) for number in range(100, 140)]


def test_a_model_that_knows_is_above_every_rule() -> None:
    items = graded([asked(number).answer for number in range(30)])
    table = compare(items, prepare_baselines(taught(), Retriever([])), {"passages": TASK})
    assert (table["questions"], table["documents"]) == (30, 10)
    score = table["scores"]["exact"]
    assert score["model"] == 1.0 and score["verdict"] == "above"
    assert max(score["rules"].values()) == score["rules"][score["best_rule"]]
    assert table["chrf_by_kind"]["section"]["model"] == pytest.approx(100)


def test_a_model_that_answers_like_a_rule_is_not_above_it() -> None:
    baselines = prepare_baselines(taught(), Retriever([]))
    items = graded([baselines.answers(asked(number))["template"] for number in range(30)])
    score = compare(items, baselines, {"passages": TASK})["scores"]["chrf"]
    assert score["verdict"] != "above"
    assert "not distinguishable from the best rule" in verdict("chrf", score) or score["verdict"] == "below"


def test_intervals_are_clustered_by_document_and_differences_paired() -> None:
    items = graded([asked(number).answer if number % 4 else "Nothing." for number in range(30)])
    baselines = prepare_baselines(taught(), Retriever([]))
    score = compare(items, baselines, {"passages": TASK})["scores"]["chrf"]
    values = [item.scores["chrf"] for item in items]
    rule = [
        TASK.grade(item.example, baselines.answers(item.example)[score["best_rule"]])["chrf"]
        for item in items
    ]
    clusters = [item.example.group for item in items]
    assert score["interval"] == bootstrap(values, clusters=clusters).bounds
    assert score["difference_interval"] == paired_difference(values, rule, clusters=clusters).bounds


def test_the_verdict_names_the_rule_and_both_scores() -> None:
    score = {"model": 0.4, "rules": {"nearest": 0.55}, "best_rule": "nearest", "verdict": "below",
             "difference_interval": [-0.2, -0.1]}  # fmt: skip
    assert verdict("exact", score) == (
        "exact answers: the model (40 %) is below the best rule without a model, nearest taught answer, renamed "
        "(55 %); difference -20 % to -10 %"
    )
