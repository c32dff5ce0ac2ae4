"""Scores of a model's answers beside those of the rules without a model.

in:  graded answers, and the rules' answers to the same questions
out: a table (plain JSON): per score the model's mean with its interval, each rule's mean, the best rule, the paired
     difference from it with its interval

All intervals are clustered by document. The best rule is chosen by its mean on the same questions, which favours the
rules a little.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from groundup.evaluate.baselines import Baselines
from groundup.evaluate.grading import new_words_f1
from groundup.evaluate.score import GradedAnswer, grade
from groundup.evaluate.statistics import bootstrap, paired_difference
from groundup.evaluate.tasks import Example, Task

Scores = dict[str, float]


def compare(graded: Sequence[GradedAnswer], baselines: Baselines, tasks: dict[str, Task]) -> dict[str, Any]:
    """The table of one set of questions."""
    model = [_with_new_words(item.example, item.answer, item.scores) for item in graded]
    rules: dict[str, list[Scores]] = defaultdict(list)
    for item in graded:
        for rule, answer in baselines.answers(item.example).items():
            scores = grade(tasks[item.example.task], item.example, answer)
            rules[rule].append(_with_new_words(item.example, answer, scores))
    documents = [item.example.group for item in graded]
    names = dict.fromkeys(name for scores in model for name in scores)
    return {
        "questions": len(graded),
        "documents": len(set(documents)),
        "scores": {name: _compared(name, model, rules, documents) for name in names},
        "chrf_by_kind": _by_kind(graded, model, rules),
    }


def _with_new_words(example: Example, answer: str, scores: Scores) -> Scores:
    return scores | {"new_words": new_words_f1(answer, example.answer, example.question)}


def _compared(
    name: str, model: Sequence[Scores], rules: dict[str, list[Scores]], documents: Sequence[str]
) -> dict[str, Any]:
    """One score over the questions that have it."""
    chosen = [index for index, scores in enumerate(model) if name in scores]
    clusters = [documents[index] for index in chosen]
    values = [model[index][name] for index in chosen]
    by_rule = {rule: [scores[index].get(name, 0.0) for index in chosen] for rule, scores in rules.items()}
    means = {rule: sum(numbers) / len(numbers) for rule, numbers in by_rule.items()}
    best = max(means, key=lambda rule: means[rule])
    interval = bootstrap(values, clusters=clusters)
    difference = paired_difference(values, by_rule[best], clusters=clusters)
    relation = "above" if difference.low > 0 else "below" if difference.high < 0 else "same"
    return {
        "model": interval.mean,
        "interval": interval.bounds,
        "rules": means,
        "best_rule": best,
        "difference": difference.mean,
        "difference_interval": difference.bounds,
        "verdict": relation,
    }


def _by_kind(
    graded: Sequence[GradedAnswer], model: Sequence[Scores], rules: dict[str, list[Scores]]
) -> dict[str, Any]:
    """Per kind of question: chrF of the model and of the rule that is best at it."""
    indices: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(graded):
        indices[item.example.kind].append(index)
    kinds = {}
    for kind, chosen in sorted(indices.items()):
        means = {rule: _mean_chrf(scores, chosen) for rule, scores in rules.items()}
        best = max(means, key=lambda rule: means[rule])
        kinds[kind] = {
            "questions": len(chosen),
            "model": _mean_chrf(model, chosen),
            "best_rule": best,
            "rule": means[best],
        }
    return kinds


def _mean_chrf(scores: Sequence[Scores], chosen: Sequence[int]) -> float:
    return sum(scores[index]["chrf"] for index in chosen) / len(chosen)
