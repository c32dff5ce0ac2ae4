"""samples.json of evaluate and of align steps -> questions with their answers for comparison.

in:  an artifact with a samples.json
out: `Sample`s, and a `Dialogue` block for each
"""

from dataclasses import dataclass
from typing import Any

from groundup.book.content import ColouredSpan, Dialogue, DialogueTurn
from groundup.book.format import clip, is_number, number
from groundup.book.load_run import LoadedArtifact

_ANSWERS = {
    "before": "before",
    "after": "after",
    "chat": "chat model",
}


@dataclass(frozen=True)
class Sample:
    """One question with its reference answer; `answers` holds (model, text, scores)."""

    question: str
    reference: str
    answers: tuple[tuple[str, str, str], ...]
    score: float | None = None
    held_out: bool = True


def samples_of(artifact: LoadedArtifact | None) -> list[Sample]:
    """The artifact's samples in file order; empty without a samples.json."""
    items = artifact.json("samples.json") if artifact else None
    if isinstance(items, dict):
        items = items.get("samples")
    if not isinstance(items, list):
        return []
    return [sample for item in items if (sample := _sample(item)) is not None]


def comparison(sample: Sample) -> Dialogue:
    """Question, answers and reference answer, one under the other."""
    turns = [DialogueTurn("user", (ColouredSpan(clip(sample.question, 600)),))]
    turns += [
        DialogueTurn(model, (ColouredSpan(clip(text, 700) or "(nothing)"),), scores)
        for model, text, scores in sample.answers
    ]
    turns.append(DialogueTurn("reference answer", (ColouredSpan(clip(sample.reference, 700), 3),)))
    return Dialogue(tuple(turns))


def _sample(item: Any) -> Sample | None:
    if not isinstance(item, dict):
        return None
    question, reference = item.get("question"), item.get("reference")
    answers = tuple(
        (model, str(item[key]), _scores(item, key))
        for key, model in _ANSWERS.items()
        if isinstance(item.get(key), str)
    )
    if not isinstance(question, str) or not answers:
        return None
    score = item.get("chrf")
    return Sample(
        question,
        reference if isinstance(reference, str) else "",
        answers,
        float(score) if is_number(score) else None,
        item.get("held_out") is not False,
    )


def _scores(item: dict[str, Any], key: str) -> str:
    """The scores of one answer: `chrf_after`, or `chrf` when the sample has a single answer."""
    scores = []
    for name, word, digits in (("reward", "reward", 2), ("chrf", "chrF", 1)):
        value = item.get(f"{name}_{key}", item.get(name) if key == "chat" else None)
        if is_number(value):
            scores.append(f"{word} {number(float(value), digits)}")
    return ", ".join(scores)
