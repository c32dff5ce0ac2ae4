"""Groups of responses to prompts, scored by a verifier.

in:  prompts with reference answers, a policy, a verifier
out: GroupRollouts: responses in groups, their log-probabilities, scores and the scores' parts
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.align.rollouts import RewardModel, Rollouts, rollout_log_probs, sample
from groundup.align.session import SessionSetup
from groundup.core.records import Prompt
from groundup.core.registry import Plugin
from groundup.evaluate.score import chat_engine
from groundup.evaluate.verifiers import Score, Verifier
from groundup.model.decoder import Decoder

VERIFIERS = Plugin("groundup.evaluate.verifiers")


@dataclass(frozen=True)
class GroupRollouts:
    """Responses, those of a group side by side. Per-token tensors are [responses, time]."""

    rollouts: Rollouts
    log_probs: Float[Tensor, "responses time"]
    reference_log_probs: Float[Tensor, "responses time"]
    scores: Float[Tensor, " responses"]
    parts: tuple[dict[str, float], ...]
    """of each response's score"""

    @staticmethod
    def concatenate(pieces: Sequence["GroupRollouts"]) -> "GroupRollouts":
        """All responses of `pieces`, in order."""
        return GroupRollouts(
            Rollouts.concatenate([piece.rollouts for piece in pieces]),
            torch.cat([piece.log_probs for piece in pieces]),
            torch.cat([piece.reference_log_probs for piece in pieces]),
            torch.cat([piece.scores for piece in pieces]),
            tuple(parts for piece in pieces for parts in piece.parts),
        )

    def select(self, indices: Sequence[int]) -> "GroupRollouts":
        """The responses with these indices, in their order."""
        rows = torch.tensor(list(indices))
        return GroupRollouts(
            self.rollouts.select(indices),
            self.log_probs[rows],
            self.reference_log_probs[rows],
            self.scores[rows],
            tuple(self.parts[i] for i in indices),
        )

    def kl(self) -> Float[Tensor, " responses"]:
        """KL divergence from the reference policy in nats, estimated for each response."""
        return ((self.log_probs - self.reference_log_probs) * self.rollouts.mask).sum(dim=1)


@dataclass(frozen=True)
class Scorer:
    """Scores responses: a verifier's score, a weighted reward model's, less the penalty of a missing end."""

    verifier: Verifier
    missing_eos_penalty: float
    reward_model: RewardModel | None
    reward_model_weight: float

    def parts(self, prompt: Prompt, response: str) -> dict[str, float]:
        """The verifier's score under `verifier`, and those of its parts."""
        score: Score = self._verifier(prompt).score(
            prompt.messages[-1].content, response, prompt.answer or ""
        )
        return {"verifier": score.value, **score.parts}

    def _verifier(self, prompt: Prompt) -> Verifier:
        """The verifier that a prompt names, where it is registered; else the method's."""
        if prompt.verifier and prompt.verifier in VERIFIERS.names():
            return cast(Verifier, VERIFIERS.load(prompt.verifier)())
        return self.verifier


@dataclass(frozen=True)
class GroupSampler:
    """How groups of responses are sampled."""

    setup: SessionSetup
    scorer: Scorer
    reference: Decoder
    max_new_tokens: int
    temperature: float

    def sample(self, policy: Decoder, prompts: Sequence[Prompt], group: int, seed: int) -> GroupRollouts:
        """`group` responses to each prompt; each data-parallel rank samples those of a part of the prompts."""

        def compute(part: Sequence[Prompt], first: int) -> GroupRollouts:
            repeated = [prompt for prompt in part for _ in range(group)]
            return self._responses(policy, repeated, first * group, seed)

        return GroupRollouts.concatenate(self.setup.divided(prompts, compute))

    def _responses(self, policy: Decoder, prompts: Sequence[Prompt], first: int, seed: int) -> GroupRollouts:
        setup, tokenizer = self.setup, self.setup.context.tokenizer
        rollouts = sample(
            chat_engine(policy, tokenizer),
            [setup.prompt_ids(prompt.messages) for prompt in prompts],
            self.max_new_tokens,
            self.temperature,
            seed,
            tokenizer.end_of_turn,
            first,
        )
        log_probs, reference_log_probs = (
            rollout_log_probs(model, rollouts, setup.shape, self.temperature)
            for model in (policy, self.reference)
        )
        texts = [tokenizer.decode(response) for response in rollouts.responses]
        parts = tuple(self.scorer.parts(prompt, text) for prompt, text in zip(prompts, texts, strict=True))
        scores = torch.tensor([part["verifier"] for part in parts])
        if self.scorer.reward_model is not None:
            rewards = self.scorer.reward_model.scores(rollouts.sequences(), setup.shape)
            scores = scores + self.scorer.reward_model_weight * rewards
        scores = scores - self.scorer.missing_eos_penalty * (~rollouts.ended).float()
        return GroupRollouts(rollouts, log_probs, reference_log_probs, scores, parts)
