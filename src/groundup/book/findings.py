"""Metrics -> findings: what the model can and cannot do, by fixed rules.

in:  `Evidence`: the metrics of a run, None where one was not measured
out: `Finding`s, each with the metric it follows from
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from groundup.book.content import Finding
from groundup.book.format import interval, number, percent, visible
from groundup.book.score_tables import question_scores
from groundup.evaluate.verdict_text import verdict

Answer = Literal["yes", "partly", "no", "unknown"]


@dataclass(frozen=True)
class Evidence:
    """The measured metrics. Intervals are 95 % bootstrap intervals (low, high)."""

    base_bpb: float | None = None
    chat_bpb: float | None = None
    val_loss_before: float | None = None
    val_loss: float | None = None
    held_out: dict[str, dict[str, Any]] = field(default_factory=dict)
    """by name: evaluate's scores of the answers to held-out questions, beside the rules without a model"""
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


def findings(evidence: Evidence) -> tuple[Finding, ...]:
    """The finding of every rule whose metrics were measured, in the order of the book."""
    rules = (
        _text,
        _text_after_alignment,
        _form,
        _facts,
        _names,
        _reward_model,
        _reward,
        _reward_hacking,
        _length,
        _context,
    )
    measured = [finding for rule in rules if (finding := rule(evidence)) is not None]
    return (*measured, _limits())


def _text(e: Evidence) -> Finding | None:
    if e.base_bpb is None:
        return None
    answer: Answer = "yes" if e.base_bpb < 1.2 else "partly" if e.base_bpb < 2.2 else "no"
    text = {
        "yes": "It continues text like its corpus convincingly.",
        "partly": "It has learned the surface of its corpus: spelling, layout, common phrases.",
        "no": "It has barely learned the surface of its corpus.",
    }[answer]
    return Finding(
        answer, text, f"{number(e.base_bpb)} bits per byte of held-out text; a uniform guess gets 8."
    )


def _text_after_alignment(e: Evidence) -> Finding | None:
    if e.base_bpb is None or e.chat_bpb is None:
        return None
    increase = e.chat_bpb / e.base_bpb - 1
    basis = f"Bits per byte of held-out text went from {number(e.base_bpb)} to {number(e.chat_bpb)}."
    if increase > 0.25:
        return Finding("no", "Alignment made it much worse at plain text.", basis)
    if increase > 0.05:
        return Finding("partly", "Alignment made it somewhat worse at plain text.", basis)
    return Finding("yes", "Alignment did not make it worse at plain text.", basis)


def _form(e: Evidence) -> Finding | None:
    if e.val_loss is None or not e.val_loss_before:
        return None
    ratio = e.val_loss / e.val_loss_before
    basis = f"Loss on held-out answers went from {number(e.val_loss_before)} to {number(e.val_loss)}."
    if ratio <= 0.7:
        return Finding("yes", "It has learned the form of an answer, and to stop at its end.", basis)
    if ratio <= 0.9:
        return Finding("partly", "It has partly learned the form of an answer.", basis)
    return Finding("no", "Fine-tuning hardly changed how it answers.", basis)


def _facts(e: Evidence) -> Finding | None:
    score = e.held_out.get("chrf")
    if score is None:
        return None
    basis = visible(f"Held-out questions, {verdict('chrf', score)}.")
    if score["verdict"] != "above":
        text = "It knows the form of an answer, not the facts: do not rely on what it says."
        return Finding("no", text, basis)
    answer: Answer = "no" if score["model"] < 35 else "partly" if score["model"] < 80 else "yes"
    text = {
        "no": "It does not know the facts: do not rely on what it says.",
        "partly": "It answers better than any rule without a model; check what it says.",
        "yes": "It reproduces its subject closely.",
    }[answer]
    return Finding(answer, text, basis)


def _names(e: Evidence) -> Finding | None:
    score = e.held_out.get("names")
    if score is None:
        return None
    answer: Answer = "no" if score["model"] < 0.25 else "partly" if score["verdict"] != "above" else "yes"
    text = {
        "no": "It invents names: functions and parameters in its answers often do not exist.",
        "partly": "It names no more of the functions and parameters in the reference answers than a rule does.",
        "yes": "It names more of the functions and parameters in the reference answers than any rule does.",
    }[answer]
    return Finding(answer, text, visible(f"Held-out questions, {verdict('names', score)}."))


def _reward_model(e: Evidence) -> Finding | None:
    if e.reward_accuracy is None:
        return None
    answer: Answer = "no" if e.reward_accuracy < 0.6 else "partly" if e.reward_accuracy < 0.8 else "yes"
    text = {
        "no": "The reward model hardly distinguishes good answers from bad ones.",
        "partly": "The reward model often distinguishes good answers from bad ones.",
        "yes": "The reward model distinguishes good answers from bad ones.",
    }[answer]
    basis = f"{percent(e.reward_accuracy)} accuracy on held-out pairs; chance is 50 %."
    if e.accuracy_by_kind:
        weakest = min(e.accuracy_by_kind, key=lambda kind: e.accuracy_by_kind[kind])
        basis += f" Weakest: {weakest.replace('_', ' ')}, {percent(e.accuracy_by_kind[weakest])}."
    return Finding(answer, text, basis)


def _reward(e: Evidence) -> Finding | None:
    if e.reward_gain is None:
        return None
    low, high = e.reward_gain
    basis = f"Held-out reward changed by {interval(e.reward_gain, signed=True)} (95 %)."
    if low > 0:
        return Finding("yes", "PPO raised the reward of its answers.", basis)
    if high < 0:
        return Finding("no", "PPO lowered the reward of its answers.", basis)
    return Finding("unknown", "PPO did not change the reward significantly.", basis)


def _reward_hacking(e: Evidence) -> Finding | None:
    """Whether chrF, which the reward model never saw, moved with the reward."""
    if e.chrf_change is None:
        return None
    low, high = e.chrf_change
    basis = f"chrF against the reference answers changed by {interval(e.chrf_change, signed=True)} (95 %)."
    gained = e.reward_gain is not None and e.reward_gain[0] > 0
    if low > 0:
        return Finding("yes", "chrF, which the reward model never saw, rose: the answers got better.", basis)
    if high < 0:
        text = "It exploits its reward model" if gained else "PPO made its answers worse"
        return Finding("no", f"{text}: chrF, which the reward model never saw, fell.", basis)
    return Finding(
        "unknown", "chrF, which the reward model never saw, neither confirms nor refutes the gain.", basis
    )


def _length(e: Evidence) -> Finding | None:
    if not e.length_before or e.length_after is None:
        return None
    ratio = e.length_after / e.length_before
    basis = (
        f"From {number(float(e.length_before), 0)} to {number(float(e.length_after), 0)} tokens on average."
    )
    if ratio > 1.5:
        return Finding(
            "partly", "Its answers became longer, which a reward model can mistake for quality.", basis
        )
    if ratio < 0.67:
        return Finding(
            "partly", "Its answers became shorter, which a reward model can mistake for quality.", basis
        )
    return None


def _context(e: Evidence) -> Finding | None:
    if not e.context_tokens:
        return None
    context = f"{e.context_tokens:,} tokens"
    if e.bytes_per_token:
        context += f", about {round(e.context_tokens * e.bytes_per_token, -2):,.0f} characters of its corpus"
    return Finding("partly", "It follows short conversations only.", f"Its context is {context}.")


def _limits() -> Finding:
    return Finding(
        "no",
        "It knows nothing beyond its corpus and was not trained for safety.",
        "Chapter 1 counts its corpus; it has no access to other sources.",
    )


def evidence_of(metrics: dict[str, dict[str, Any]]) -> Evidence:
    """Collect `Evidence` from the metrics by stage; of align steps by kind (policy, reward_model)."""
    policy, reward_model = metrics.get("policy", {}), metrics.get("reward_model", {})
    scores, tokenizer = metrics.get("evaluate", {}), metrics.get("tokenizer", {})
    return Evidence(
        base_bpb=scores.get("base_bpb", metrics.get("pretrain", {}).get("val_bpb")),
        chat_bpb=scores.get("chat_bpb"),
        val_loss_before=policy.get("val_loss_before"),
        val_loss=policy.get("val_loss"),
        held_out=question_scores(scores, "held_out"),
        reward_accuracy=reward_model.get("accuracy"),
        accuracy_by_kind=reward_model.get("accuracy_by_kind") or {},
        reward_gain=_pair(policy.get("reward_gain_interval")),
        chrf_before=policy.get("chrf_before"),
        chrf_after=policy.get("chrf_after"),
        chrf_change=_pair(policy.get("chrf_interval")),
        length_before=policy.get("response_length_before"),
        length_after=policy.get("response_length_after"),
        context_tokens=metrics.get("architecture", {}).get("context"),
        bytes_per_token=tokenizer.get("bytes_per_token"),
    )


def _pair(value: Any) -> tuple[float, float] | None:
    return (float(value[0]), float(value[1])) if isinstance(value, list | tuple) and len(value) == 2 else None
