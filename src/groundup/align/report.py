"""Compares the responses before and after PPO, with intervals.

in:  held-out questions, answers to them by both policies
out: metrics, and samples.json for reading
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from groundup.align.rollouts import Rollouts
from groundup.core.atomic_io import write_json
from groundup.core.stage import Metrics, StageContext
from groundup.evaluate.chrf import chrf
from groundup.evaluate.statistics import paired_difference
from groundup.evaluate.tasks import Example
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


def ppo_report(
    out: StageContext, questions: Sequence[Example], before: Responses, after: Responses, seed: int
) -> Metrics:
    """Means before and after, and 95 % bootstrap intervals of the paired differences, clustered by document."""
    references = [example.answer for example in questions]
    scores = [
        [chrf(text, reference) for text, reference in zip(answers.texts, references, strict=True)]
        for answers in (before, after)
    ]
    documents = [example.group for example in questions]
    write_json(out.file("samples.json"), _samples(questions, before, after))
    return {
        "reward_before": _mean(before.rewards),
        "reward_after": _mean(after.rewards),
        "reward_gain_interval": paired_difference(after.rewards, before.rewards, seed, documents).bounds,
        "kl": _mean(after.kl),
        "chrf_before": _mean(scores[0]),
        "chrf_after": _mean(scores[1]),
        "chrf_interval": paired_difference(scores[1], scores[0], seed, documents).bounds,
        "response_length_before": _mean(before.lengths),
        "response_length_after": _mean(after.lengths),
        "ended_before": _mean(before.ended),
        "ended_after": _mean(after.ended),
        "held_out_questions": len(questions),
    }


def _samples(questions: Sequence[Example], before: Responses, after: Responses) -> list[dict[str, object]]:
    return [
        {
            "kind": example.kind,
            "question": example.question,
            "reference": example.answer,
            "before": before.texts[i],
            "after": after.texts[i],
            "reward_before": before.rewards[i],
            "reward_after": after.rewards[i],
        }
        for i, example in enumerate(questions[:SHOWN])
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
