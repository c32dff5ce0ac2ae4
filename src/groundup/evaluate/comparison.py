"""Scores of a model's answers beside those of the rules without a model, and a verdict on each score.

in:  graded answers, and the rules' answers to the same questions
out: a table (plain JSON): per score the model's mean with its interval, each rule's mean, the best rule, the paired
     difference from it with its interval; verdicts in words

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
QUESTION_SETS = {
    "held_out": "held-out questions",
    "taught": "taught questions",
    "held_out_without_passages": "held-out questions, without passages",
    "taught_without_passages": "taught questions, without passages",
}
"""Names in evaluate's metrics of the sets of questions that it asks."""
RULE_NAMES = {
    "question": "repeat the question",
    "other": "answer to another question",
    "template": "one answer per kind, renamed",
    "nearest": "nearest taught answer, renamed",
    "passage": "first line of the passage found",
}
SCORE_NAMES = {
    "chrf": "chrF",
    "exact": "exact answers",
    "new_words": "F1 of words not in the question",
    "names": "names recalled",
}


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


def verdict(name: str, score: dict[str, Any]) -> str:
    """A clause that compares a score with the best rule."""
    low, high = (format_score(name, bound, sign=True) for bound in score["difference_interval"])
    relation = {"above": "above", "below": "below", "same": "not distinguishable from"}[score["verdict"]]
    rule = RULE_NAMES.get(score["best_rule"], score["best_rule"])
    value, rule_value = (
        format_score(name, number) for number in (score["model"], score["rules"][score["best_rule"]])
    )
    return (
        f"{SCORE_NAMES.get(name, name)}: the model ({value}) is {relation} the best rule without a "
        f"model, {rule} ({rule_value}); difference {low} to {high}"
    )


def format_score(name: str, value: float, sign: bool = False) -> str:
    """chrF with one decimal; a share in percent."""
    plus = "+" if sign else ""
    return f"{value:{plus}.1f}" if name == "chrf" else f"{100 * value:{plus}.0f} %"


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
