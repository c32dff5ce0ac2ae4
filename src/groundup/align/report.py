"""Compares the responses before and after PPO, with intervals.

in:  held-out questions, answers to them by both policies
out: metrics, and samples.json for reading
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from groundup.align.rollouts import Rollouts
from groundup.core.atomic_io import write_json
from groundup.core.records import Prompt
from groundup.core.stage import Metrics, StageContext
from groundup.evaluate.chrf import chrf
from groundup.evaluate.statistics import paired_difference
from groundup.tokens.tokenizer import Tokenizer

SHOWN = 24
"""Questions written to `samples.json`."""


@dataclass(frozen=True)
class Responses:
    """One policy's responses to the held-out questions."""

    texts: list[str]
    rewards: list[float]
    lengths: list[int]
    """in tokens, including the end-of-turn token"""
    kl: list[float]
    """KL divergence from the reference policy in nats, estimated for each response"""
    ended: list[bool]


def to_responses(rollouts: Rollouts, rewards: Tensor, kl: Tensor, tokenizer: Tokenizer) -> Responses:
    """Rollouts as text and plain numbers."""
    return Responses(
        [tokenizer.decode(answer) for answer in rollouts.responses],
        rewards.tolist(),
        [len(answer) for answer in rollouts.responses],
        kl.tolist(),
        rollouts.ended.tolist(),
    )


def rollout_report(
    out: StageContext, questions: Sequence[Prompt], before: Responses, after: Responses, seed: int
) -> Metrics:
    """Means before and after, and 95 % bootstrap intervals of the paired differences, clustered by document."""
    documents = [question.group for question in questions]
    write_json(out.file("samples.json"), _samples(questions, before, after))
    return {
        "reward_before": _mean(before.rewards),
        "reward_after": _mean(after.rewards),
        "reward_gain_interval": paired_difference(after.rewards, before.rewards, seed, documents).bounds,
        "kl": _mean(after.kl),
        "response_length_before": _mean(before.lengths),
        "response_length_after": _mean(after.lengths),
        "ended_before": _mean(before.ended),
        "ended_after": _mean(after.ended),
        "held_out_questions": len(questions),
    } | _reference_scores(questions, before, after, seed)


def _reference_scores(questions: Sequence[Prompt], before: Responses, after: Responses, seed: int) -> Metrics:
    """chrF against the reference answers, before and after; empty where no question has one."""
    with_reference = [
        (i, question.answer) for i, question in enumerate(questions) if question.answer is not None
    ]
    if not with_reference:
        return {}
    first, second = (
        [chrf(responses.texts[i], answer) for i, answer in with_reference] for responses in (before, after)
    )
    groups = [questions[i].group for i, _ in with_reference]
    return {
        "chrf_before": _mean(first),
        "chrf_after": _mean(second),
        "chrf_interval": paired_difference(second, first, seed, groups).bounds,
    }


def _samples(questions: Sequence[Prompt], before: Responses, after: Responses) -> list[dict[str, object]]:
    return [
        {
            "kind": question.kind,
            "question": question.messages[-1].content,
            "reference": question.answer or "",
            "before": before.texts[i],
            "after": after.texts[i],
            "reward_before": before.rewards[i],
            "reward_after": after.rewards[i],
        }
        for i, question in enumerate(questions[:SHOWN])
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
