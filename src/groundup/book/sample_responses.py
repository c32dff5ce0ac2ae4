"""samples.json of evaluate and ppo -> questions with their answers, side by side.

in:  an artifact with a samples.json
out: `Sample`s, and each as a conversation block
"""

from dataclasses import dataclass
from typing import Any

from groundup.book.content import Dialogue, Piece, Turn
from groundup.book.format import clip, is_number, number
from groundup.book.load_run import LoadedArtifact

_TRUTH = ("truth", "reference", "answer", "expected")
_ANSWERS = {
    "before": "before",
    "after": "after",
    "base": "base model",
    "chat": "the model",
    "reply": "the model",
    "response": "the model",
    "output": "the model",
}


@dataclass(frozen=True)
class Sample:
    """One held-out question: `answers` holds (who, what it said, a note of its scores)."""

    question: str
    truth: str
    answers: tuple[tuple[str, str, str], ...]
    score: float | None = None
    held_out: bool = True


def samples_of(made: LoadedArtifact | None) -> list[Sample]:
    """The samples an artifact carries, in its order; none where it has none."""
    said = made.json("samples.json") if made else None
    if isinstance(said, dict):
        said = said.get("samples")
    return (
        [sample for item in said or [] if (sample := _sample(item)) is not None]
        if isinstance(said, list)
        else []
    )


def compared(sample: Sample) -> Dialogue:
    """Question, answers and truth, one under the other."""
    turns = [Turn("user", (Piece(clip(sample.question, 600)),))]
    turns += [Turn(who, (Piece(clip(text, 700) or "(nothing)"),), note) for who, text, note in sample.answers]
    turns.append(Turn("the true answer", (Piece(clip(sample.truth, 700), 3),)))
    return Dialogue(tuple(turns))


def _sample(item: Any) -> Sample | None:
    if not isinstance(item, dict):
        return None
    question = item.get("question") or item.get("prompt")
    answers = tuple(
        (who, str(item[key]), _note(item, key))
        for key, who in _ANSWERS.items()
        if isinstance(item.get(key), str)
    )
    if not isinstance(question, str) or not answers:
        return None
    truth = next((str(item[key]) for key in _TRUTH if isinstance(item.get(key), str)), "")
    score = item.get("chrf", item.get("chat_chrf"))
    return Sample(
        question,
        truth,
        answers,
        float(score) if is_number(score) else None,
        item.get("held_out") is not False,
    )


def _note(item: dict[str, Any], key: str) -> str:
    """The scores that belong to one answer: `chrf_after`, or `chrf` where there is one answer only."""
    parts = []
    for name, word, digits in (("reward", "reward", 2), ("chrf", "chrF", 1)):
        value = item.get(
            f"{name}_{key}", item.get(f"{key}_{name}", item.get(name) if key in ("chat", "reply") else None)
        )
        if is_number(value):
            parts.append(f"{word} {number(float(value), digits)}")
    return ", ".join(parts)
