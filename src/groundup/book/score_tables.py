"""Tables and figures of evaluate's comparison of the model with rules that need no model.

in:  evaluate's metrics
out: blocks: a table with verdicts for held-out and for taught questions, all rules, chrF by kind of question
"""

from typing import Any

from groundup.book.content import Block, Figure, Heading, Table, prose
from groundup.book.figures import Bar, bars_svg
from groundup.book.format import count, interval, is_interval, is_number, number, percent, visible
from groundup.evaluate.verdict_text import QUESTION_SETS, RULE_NAMES, SCORE_NAMES

VERDICTS = {"above": "model is better", "below": "rule is better", "same": "no difference shown"}


def question_scores(metrics: dict[str, Any], questions: str) -> dict[str, dict[str, Any]]:
    """The scores of one set of questions, by name; those that are complete."""
    table = metrics.get(questions)
    scores = table.get("scores") if isinstance(table, dict) else None
    return {name: score for name, score in scores.items() if _complete(score)} if scores else {}


def comparison_blocks(metrics: dict[str, Any]) -> list[Block]:
    """Each set of questions that was asked, with its verdicts, then the rules."""
    blocks: list[Block] = []
    for questions, title in QUESTION_SETS.items():
        scores = question_scores(metrics, questions)
        if scores:
            blocks += [Heading(f"Answers to {title}"), _verdicts(metrics[questions], scores)]
    if blocks:
        blocks += [
            prose("The rules answer without a model. A score that a rule also gets shows no knowledge.")
        ]
        blocks += [_rules(metrics), *_kinds(metrics)]
    return blocks


def _verdicts(table: dict[str, Any], scores: dict[str, dict[str, Any]]) -> Table:
    lines = []
    for name, score in scores.items():
        best = score["best_rule"]
        lines.append((
            SCORE_NAMES.get(name, visible(name)), _value(name, score["model"]), _bounds(name, score["interval"]),
            f"{_value(name, score['rules'].get(best))} ({RULE_NAMES.get(best, visible(str(best)))})",
            _bounds(name, score["difference_interval"]), VERDICTS.get(score["verdict"], ""),
        ))  # fmt: skip
    return Table(
        ("score", "model", "95 % interval", "best rule", "difference", "verdict"), tuple(lines), "lrrlrl",
        f"{count(table.get('questions'))} questions about {count(table.get('documents'))} documents. Intervals are "
        "bootstraps clustered by document; the difference is paired.",
    )  # fmt: skip


def _rules(metrics: dict[str, Any]) -> Table:
    """Every rule's chrF and exact answers on both sets of questions."""
    sets = {questions: question_scores(metrics, questions) for questions in QUESTION_SETS}
    columns = [
        (questions, name)
        for questions, scores in sets.items()
        for name in ("chrf", "exact")
        if name in scores
    ]
    lines = [
        (title, *(_value(name, sets[questions][name]["rules"].get(rule)) for questions, name in columns))
        for rule, title in RULE_NAMES.items()
    ]
    heads = [
        f"{SCORE_NAMES[name]}, {QUESTION_SETS[questions].removesuffix(' questions')}"
        for questions, name in columns
    ]
    return Table(("rule", *heads), tuple(lines), "l" + "r" * len(columns), "Rules without a model.")


def _kinds(metrics: dict[str, Any]) -> list[Block]:
    kinds = metrics.get("held_out", {}).get("chrf_by_kind")
    entries = kinds.items() if isinstance(kinds, dict) else ()
    bars = []
    for kind, entry in entries:
        if isinstance(entry, dict) and is_number(entry.get("model")) and is_number(entry.get("rule")):
            bars.append(Bar(visible(kind).replace("_", " ")[:30], entry["model"]))
            bars.append(
                Bar(f"rule: {visible(str(entry.get('best_rule')))[:20]}", entry["rule"], colour="orange")
            )
    if not bars:
        return []
    drawing = bars_svg(bars, "chrF", 100.0)
    caption = "chrF by kind of held-out question: the model, and the rule that is best at this kind."
    return [Figure("kinds", drawing, caption, "chrF by kind of question", 0.9)]


def _complete(score: Any) -> bool:
    return (
        isinstance(score, dict)
        and is_number(score.get("model"))
        and isinstance(score.get("rules"), dict)
        and all(is_interval(score.get(key)) for key in ("interval", "difference_interval"))
    )


def _value(name: str, value: Any) -> str:
    return number(value, 1) if name == "chrf" else percent(value)


def _bounds(name: str, bounds: Any) -> str:
    return interval(bounds, 1) if name == "chrf" else f"{percent(bounds[0])} to {percent(bounds[1])}"
