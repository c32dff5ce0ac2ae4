"""Method: KTO. Responses labelled good or bad -> a policy that makes the good ones likelier. No pairs are needed.

in:  an initial policy (the reference policy), labelled responses
out: the policy; log-ratios of good and bad held-out responses

Ethayarajh et al. 2024 (arXiv:2402.01306). The reference point z is the mean log-ratio of mismatched responses (the
response of one example after the prompt of another) over the whole step and all ranks, not below 0, computed with the
weights at the beginning of the step. `loss = "apo_zero"` sets z = 0 (D'Oosterlinck et al. 2024, arXiv:2408.06266).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from groundup.align import preference_objectives as objectives
from groundup.align.methods import MethodContext, Session
from groundup.align.packing import permutation
from groundup.align.preference_session import (
    AnswerBatch,
    Answers,
    PreferenceGroup,
    PreferenceMethod,
    PreferenceSession,
)
from groundup.align.response_pairs import labelled_responses
from groundup.align.sequences import response_sequence
from groundup.core.records import LabelledResponse, Split
from groundup.evaluate.alignment_data import RecordKind
from groundup.parallel.context import heartbeat
from groundup.train.loop import TrainSpec


class Kto(PreferenceMethod):
    """Kahneman-Tversky optimization: learns from single responses labelled good or bad."""

    learns_from: ClassVar[frozenset[RecordKind]] = frozenset({"labelled", "rankings", "conversations"})
    headline: ClassVar[tuple[str, ...]] = ("accuracy", "good_log_ratio", "bad_log_ratio")

    loss: Literal["kto", "apo_zero"] = Field(default="kto", description="loss of a response: kto or apo_zero")
    beta: float = Field(
        default=0.1, gt=0, description="strength of the penalty for departing from the reference policy"
    )
    good_weight: float = Field(default=1.0, ge=0, description="weight of good responses")
    bad_weight: float = Field(default=1.0, ge=0, description="weight of bad responses")

    def prepare(self, context: MethodContext) -> Session:
        """Render the responses, each after its own and after another prompt."""
        train, held_out = (_groups(self, context, split) for split in ("train", "held_out"))
        return KtoSession(self, context, train, held_out)

    def losses(self, answers: Answers) -> Float[Tensor, " groups"]:
        """The loss of each response."""
        weights = (self.good_weight, self.bad_weight)
        point = 0.0 if self.loss == "apo_zero" else answers.reference_point
        return objectives.kto(answers.log_ratios[:, 0], answers.desirable, point, self.beta, weights)


class KtoSession(PreferenceSession):
    """A training with KTO. A group is a response after its own prompt and after another one."""

    def train_spec(self) -> TrainSpec:
        """See `Session`. The reference point depends on the weights, so nothing is prefetched."""
        return self.setup.train_spec(
            self.trained.engine, self.batches, self.budget.steps, self.tokens_per_step, on_policy=True
        )

    def batches(self, step: int) -> list[AnswerBatch]:
        """See `PreferenceSession`; with the step's reference point."""
        batches = super().batches(step)
        policy, device = self.trained.whole(), self.setup.hardware.device
        mismatched = []
        for batch in batches:
            heartbeat()
            with torch.no_grad():
                mismatched.append(batch.answers(policy, device).log_ratios[:, 1].float().cpu())
        everywhere = torch.cat(self.setup.parallel.gather_dp(torch.cat(mismatched)))
        point = objectives.kto_reference_point(everywhere)
        return [replace(batch, reference_point=point) for batch in batches]

    def metrics(self, answers: Answers) -> dict[str, Tensor]:
        """The logged values: log-ratios of the good and of the bad responses, the reference point, accuracy."""
        log_ratios, good = answers.log_ratios[:, 0].detach(), answers.desirable
        point = torch.full_like(log_ratios, answers.reference_point)
        return {
            "good_log_ratio": good * log_ratios / max(answers.good_share, 1e-6),
            "bad_log_ratio": ~good * log_ratios / max(1 - answers.good_share, 1e-6),
            "reference_point": point,
            "accuracy": ((log_ratios > point) == good).float(),
        }


def _groups(recipe: Kto, context: MethodContext, split: Split) -> list[PreferenceGroup]:
    records = labelled_responses(context.data, split, recipe.made, recipe.seed)
    order = permutation(len(records), recipe.seed, "kto order")
    shuffled = [records[i] for i in order]
    return [_group(context, shuffled, at) for at in range(len(shuffled))]


def _group(context: MethodContext, records: Sequence[LabelledResponse], at: int) -> PreferenceGroup:
    record, following = records[at], records[(at + 1) % len(records)]
    own, other = (
        response_sequence(record.prompt, response, context.tokenizer)
        for response in (record.response, following.response)
    )
    return PreferenceGroup((own, other), record.good)
