"""Figures -> what the model can and cannot do. Pure rules, so that a good mood never writes them.

in:  `Evidence`: the figures of a run, None where one was not measured
out: verdicts in plain words, each with the figure it rests on
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from groundup.book.content import Verdict
from groundup.book.format import interval, number, percent

Answer = Literal["yes", "partly", "no", "unknown"]


@dataclass(frozen=True)
class Evidence:
    """What was measured. Intervals are 95 % bootstrap intervals (low, high)."""

    base_bpb: float | None = None
    chat_bpb: float | None = None
    val_loss_before: float | None = None
    val_loss: float | None = None
    names: float | None = None
    chat_chrf: float | None = None
    chat_chrf_interval: tuple[float, float] | None = None
    form_chrf: float | None = None
    """chrF of a true answer to another question of the kind: form without facts"""
    reward_accuracy: float | None = None
    accuracy_by_kind: dict[str, float] = field(default_factory=dict)
    reward_gain: tuple[float, float] | None = None
    chrf_before: float | None = None
    chrf_after: float | None = None
    chrf_change: tuple[float, float] | None = None
    length_before: float | None = None
    length_after: float | None = None
    context_tokens: int | None = None
    bytes_per_token: float | None = None


def verdicts(evidence: Evidence) -> tuple[Verdict, ...]:
    """Every rule that has its figures, in the order of the book."""
    rules = (_text, _kept_text, _form, _facts, _names, _judge, _reward, _hacking, _length, _memory)
    found = [verdict for rule in rules if (verdict := rule(evidence)) is not None]
    return (*found, _beyond())


def chrf_word(chrf: float) -> str:
    """What a chrF (0 to 100) of an answer against the true text means for a reader."""
    if chrf < 20:
        return "it has the form of an answer, hardly its content"
    if chrf < 35:
        return "the subject is often right, the facts mostly are not"
    if chrf < 55:
        return "answers share a good part of their wording with the truth"
    return "answers are close to the truth word for word"


def _text(e: Evidence) -> Verdict | None:
    if e.base_bpb is None:
        return None
    answer: Answer = "yes" if e.base_bpb < 1.2 else "partly" if e.base_bpb < 2.2 else "no"
    said = {
        "yes": "It continues text of its own kind convincingly.",
        "partly": "It has learnt the look of its corpus: spelling, layout, common phrases.",
        "no": "It has barely begun to learn what its corpus looks like.",
    }[answer]
    return Verdict(answer, said, f"{number(e.base_bpb)} bits for each unseen byte; knowing nothing costs 8.")


def _kept_text(e: Evidence) -> Verdict | None:
    if e.base_bpb is None or e.chat_bpb is None:
        return None
    paid = e.chat_bpb / e.base_bpb - 1
    because = f"Bits per byte of plain text went from {number(e.base_bpb)} to {number(e.chat_bpb)}."
    if paid > 0.25:
        return Verdict("no", "Learning to answer cost it much of what it knew of plain text.", because)
    if paid > 0.05:
        return Verdict("partly", "Learning to answer cost it some of what it knew of plain text.", because)
    return Verdict("yes", "It learnt to answer without forgetting plain text.", because)


def _form(e: Evidence) -> Verdict | None:
    if e.val_loss is None or not e.val_loss_before:
        return None
    ratio = e.val_loss / e.val_loss_before
    because = f"Loss on unseen answers went from {number(e.val_loss_before)} to {number(e.val_loss)}."
    if ratio <= 0.7:
        return Verdict("yes", "It knows what an answer looks like, and stops when it is done.", because)
    if ratio <= 0.9:
        return Verdict("partly", "It partly took on the form of answers.", because)
    return Verdict("no", "Fine-tuning hardly changed how it answers.", because)


def _facts(e: Evidence) -> Verdict | None:
    if e.chat_chrf is None:
        return None
    if (
        e.form_chrf is not None
        and e.chat_chrf_interval is not None
        and e.chat_chrf_interval[0] <= e.form_chrf
    ):
        because = (f"chrF {number(e.chat_chrf, 1)} against the true answers; a right answer to another question of "
                   f"the kind gets {number(e.form_chrf, 1)}.")  # fmt: skip
        return Verdict(
            "no", "It knows the form of an answer, not the facts: do not rely on what it says.", because
        )
    answer: Answer = "no" if e.chat_chrf < 35 else "partly" if e.chat_chrf < 55 else "yes"
    said = {
        "no": "It does not know the facts: do not rely on what it says.",
        "partly": "It knows some of its subject; check what it says.",
        "yes": "It reproduces its subject closely.",
    }[answer]
    return Verdict(answer, said, f"chrF {number(e.chat_chrf, 1)} of 100 against the true answers: "
                                 f"{chrf_word(e.chat_chrf)}.")  # fmt: skip


def _names(e: Evidence) -> Verdict | None:
    if e.names is None:
        return None
    answer: Answer = "no" if e.names < 0.25 else "partly" if e.names < 0.7 else "yes"
    said = {
        "no": "It makes names up: functions and parameters it mentions often do not exist.",
        "partly": "It gets some names right and makes others up.",
        "yes": "It mostly gets names right.",
    }[answer]
    return Verdict(answer, said, f"{percent(e.names)} of the names that belong in an answer are in it.")


def _judge(e: Evidence) -> Verdict | None:
    if e.reward_accuracy is None:
        return None
    answer: Answer = "no" if e.reward_accuracy < 0.6 else "partly" if e.reward_accuracy < 0.8 else "yes"
    said = {
        "no": "Its judge hardly tells a good answer from a bad one.",
        "partly": "Its judge often tells a good answer from a bad one.",
        "yes": "Its judge tells a good answer from a bad one.",
    }[answer]
    because = f"Right on {percent(e.reward_accuracy)} of unseen pairs; guessing gives 50 %."
    if e.accuracy_by_kind:
        weakest = min(e.accuracy_by_kind, key=lambda kind: e.accuracy_by_kind[kind])
        because += f" Weakest: {weakest.replace('_', ' ')}, {percent(e.accuracy_by_kind[weakest])}."
    return Verdict(answer, said, because)


def _reward(e: Evidence) -> Verdict | None:
    if e.reward_gain is None:
        return None
    low, high = e.reward_gain
    because = f"Held-out reward changed by {interval(e.reward_gain, signed=True)} (95 %)."
    if low > 0:
        return Verdict("yes", "Reinforcement made its answers better in its judge's eyes.", because)
    if high < 0:
        return Verdict("no", "Reinforcement made its answers worse in its judge's eyes.", because)
    return Verdict("unknown", "Reinforcement changed nothing that can be told from chance.", because)


def _hacking(e: Evidence) -> Verdict | None:
    """Did a measure the judge never saw move with the reward?"""
    if e.chrf_change is None:
        return None
    low, high = e.chrf_change
    because = f"chrF against the true answers changed by {interval(e.chrf_change, signed=True)} (95 %)."
    gained = e.reward_gain is not None and e.reward_gain[0] > 0
    if low > 0:
        return Verdict("yes", "A measure its judge never saw agrees: the answers did get better.", because)
    if high < 0:
        words = (
            "It pleases its judge rather than the truth" if gained else "Reinforcement made answers less true"
        )
        return Verdict("no", f"{words}: a measure the judge never saw fell.", because)
    return Verdict("unknown", "A measure its judge never saw neither confirms nor denies the gain.", because)


def _length(e: Evidence) -> Verdict | None:
    if not e.length_before or e.length_after is None:
        return None
    ratio = e.length_after / e.length_before
    because = (
        f"From {number(float(e.length_before), 0)} to {number(float(e.length_after), 0)} tokens on average."
    )
    if ratio > 1.5:
        return Verdict("partly", "It became wordier, which a judge can mistake for quality.", because)
    if ratio < 0.67:
        return Verdict("partly", "It became terser, which a judge can mistake for quality.", because)
    return None


def _memory(e: Evidence) -> Verdict | None:
    if not e.context_tokens:
        return None
    room = f"{e.context_tokens:,} tokens"
    if e.bytes_per_token:
        room += f", about {round(e.context_tokens * e.bytes_per_token, -2):,.0f} characters of its own text"
    return Verdict("partly", "It follows a short conversation, then has no room left.", f"It holds {room}.")


def _beyond() -> Verdict:
    return Verdict(
        "no",
        "It knows nothing beyond its corpus, and was taught nothing about safety.",
        "Everything it read is counted in chapter 1; it cannot look anything up.",
    )


def evidence_of(figures: dict[str, dict[str, Any]]) -> Evidence:
    """Collect `Evidence` from the metrics of the stages, by stage name (sft, reward, ppo, evaluate ...)."""
    sft, reward, ppo = figures.get("sft", {}), figures.get("reward", {}), figures.get("ppo", {})
    scores, tokenizer = figures.get("evaluate", {}), figures.get("tokenizer", {})
    return Evidence(
        base_bpb=scores.get("base_bpb", figures.get("pretrain", {}).get("val_bpb")),
        chat_bpb=scores.get("chat_bpb"),
        val_loss_before=sft.get("val_loss_before"),
        val_loss=sft.get("val_loss"),
        names=scores.get("names"),
        chat_chrf=scores.get("chat_chrf"),
        chat_chrf_interval=_pair(scores.get("chat_chrf_interval")),
        form_chrf=scores.get("baseline_chrf"),
        reward_accuracy=reward.get("accuracy"),
        accuracy_by_kind=reward.get("accuracy_by_kind") or {},
        reward_gain=_pair(ppo.get("reward_gain_interval")),
        chrf_before=ppo.get("chrf_before"),
        chrf_after=ppo.get("chrf_after"),
        chrf_change=_pair(ppo.get("chrf_interval")),
        length_before=ppo.get("response_length_before"),
        length_after=ppo.get("response_length_after"),
        context_tokens=figures.get("architecture", {}).get("context"),
        bytes_per_token=tokenizer.get("bytes_per_token"),
    )


def _pair(value: Any) -> tuple[float, float] | None:
    return (float(value[0]), float(value[1])) if isinstance(value, list | tuple) and len(value) == 2 else None
