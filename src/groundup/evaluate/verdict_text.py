"""Verdicts in words on the scores of `comparison.py`, and the names of sets, rules and scores. Imports no torch.

in:  a score with its interval, the best rule without a model, and the difference from it
out: a clause for `groundup show` and the book
"""

from typing import Any

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
