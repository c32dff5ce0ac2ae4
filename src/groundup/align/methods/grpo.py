"""Method: GRPO and its variants. Groups of responses to each prompt; a response better than its group is reinforced.

in:  an initial policy (the reference policy), prompts with reference answers, a verifier
out: the policy, and its responses to held-out prompts before and after

Shao et al. 2024 (arXiv:2402.03300). There is no critic: the baseline is the mean score of the group. Variants are keys:

GRPO        advantages = "std", aggregation = "response_mean", clip_high = 0.2
Dr. GRPO    advantages = "none", aggregation = "constant", clip_high = 0.2
RLOO        advantages = "leave_one_out", aggregation = "constant"
DAPO        the defaults with max_resamples = 3, overlong = "filter" or overlong_buffer
GSPO        ratio = "sequence", aggregation = "response_mean", clip_low = 3e-4, clip_high = 4e-4
CISPO       clipping = "weight", clip_low = 1.0

The functions are in `group_objectives.py`, each beside its paper. An iteration depends on the weights at its start and
its number, so training resumes at iteration boundaries.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from groundup.align.group_batches import GroupBatch, GroupIteration, group_micro_batches
from groundup.align.group_objectives import (
    Aggregation,
    Clipping,
    KlEstimator,
    Normalisation,
    Ratio,
    clipped_surrogate,
    clipped_weight,
    equal_groups,
    group_advantages,
    kl_penalty,
    log_ratios,
    overlong_penalty,
    sampler_weights,
)
from groundup.align.group_rollouts import GroupRollouts, GroupSampler, Scorer
from groundup.align.methods import Method, MethodContext, Session
from groundup.align.packing import epoch_indices, permutation
from groundup.align.report import Responses, rollout_report, to_responses
from groundup.align.rollouts import RewardModel, packed_log_probs
from groundup.align.session import SessionSetup
from groundup.core.errors import DataError
from groundup.core.records import Prompt
from groundup.core.registry import Plugin
from groundup.core.rng import derive_seed
from groundup.core.stage import ArtifactKind, Metrics
from groundup.evaluate.alignment_data import RecordKind
from groundup.evaluate.verifiers import Verifier
from groundup.evaluate.verifiers.similarity import Similarity
from groundup.model.checkpoint import save_model
from groundup.model.decoder import Decoder
from groundup.parallel.hardware import prepare_model
from groundup.train.loop import TrainSpec
from groundup.train.optimizers import Optimizer
from groundup.train.optimizers.adamw import AdamW

MICRO_ROWS = 8
"""Maximum rows of a micro-batch, as in PPO."""


class Grpo(Method):
    """Reinforcement learning with groups of responses that a verifier scores, without a critic."""

    learns_from: ClassVar[frozenset[RecordKind]] = frozenset({"prompts"})
    output: ClassVar[ArtifactKind] = "policy"
    headline: ClassVar[tuple[str, ...]] = ("reward_before", "reward_after", "reward_gain_interval", "kl")

    optimizer: Annotated[Optimizer, Plugin("groundup.train.optimizers")] = AdamW(lr=5e-5, weight_decay=0.0)
    verifier: Annotated[Verifier, Plugin("groundup.evaluate.verifiers")] = Field(
        default=Similarity(), description="what scores a response, where its prompt names no verifier"
    )
    reward_model_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of a reward model's score, added to the verifier's; above 0 the step reads a reward model",
    )
    iterations: int = Field(default=20, ge=1, description="iterations; each samples new responses")
    prompts: int = Field(default=24, ge=1, description="prompts per iteration")
    group_size: int = Field(default=8, ge=2, description="responses sampled for each prompt")
    epochs: int = Field(default=1, ge=1, description="passes over an iteration's responses")
    minibatches: int = Field(default=2, ge=1, description="optimizer steps per epoch")
    max_new_tokens: int = Field(default=96, ge=1, description="maximum tokens of a response")
    temperature: float = Field(
        default=1.0, gt=0, description="sampling temperature, also of the log-probabilities"
    )
    advantages: Normalisation = Field(
        default="std",
        description="what scores minus their group's mean are divided by: std, none, or leave_one_out (RLOO)",
    )
    ratio: Ratio = Field(
        default="token", description="probability ratio of each token, or of the whole sequence (GSPO)"
    )
    clipping: Clipping = Field(
        default="surrogate", description="what is clipped: the surrogate, or its weight alone (CISPO)"
    )
    clip_low: float = Field(default=0.2, ge=0, le=1, description="the ratio is clipped below 1 - clip_low")
    clip_high: float = Field(default=0.28, ge=0, description="the ratio is clipped above 1 + clip_high")
    aggregation: Aggregation = Field(
        default="token_mean",
        description="mean over tokens (token_mean), over responses (response_mean), or divided by a constant",
    )
    kl_coef: float = Field(
        default=0.0,
        ge=0,
        description="coefficient of the KL divergence from the reference policy in the loss",
    )
    kl_estimator: KlEstimator = Field(
        default="weighted_k3", description="estimator of the KL divergence: k2, k3 or weighted_k3"
    )
    max_kl: float = Field(
        default=20.0,
        gt=0,
        description="stop early when a response's mean KL divergence from the reference policy exceeds this (nats)",
    )
    max_resamples: int = Field(
        default=0,
        ge=0,
        description="rounds in which groups of equal scores are replaced by other prompts' (DAPO)",
    )
    overlong: Literal["keep", "filter"] = Field(
        default="keep", description="whether responses without an end-of-turn token have a loss"
    )
    overlong_buffer: int = Field(
        default=0,
        ge=0,
        description="last tokens of the limit in which the score falls by up to 1 (DAPO); 0 = none",
    )
    missing_eos_penalty: float = Field(
        default=1.0, ge=0, description="subtracted from the score of a response without an end-of-turn token"
    )
    sampler_cap: float = Field(
        default=2.0,
        ge=0,
        description="cap of the importance weight between sampler and trainer (TIS); 0 = no weight",
    )
    held_out: int = Field(
        default=256, ge=2, description="held-out prompts to which responses are compared before and after"
    )

    @property
    def inputs(self) -> Mapping[str, ArtifactKind]:  # type: ignore[override]
        """The models that it reads."""
        reward: Mapping[str, ArtifactKind] = {"reward": "reward_model"} if self.reward_model_weight else {}
        return {"start": "policy", **reward}

    def prepare(self, context: MethodContext) -> Session:
        """Load the models and sample responses to the held-out prompts."""
        return GrpoSession(self, context)


class GrpoSession:
    """A training with GRPO."""

    def __init__(self, recipe: Grpo, context: MethodContext) -> None:
        self.recipe, self.context = recipe, context
        self.setup = SessionSetup.create(recipe, context, MICRO_ROWS, divide_rows=False)
        train, held_out = context.both_splits("prompts")
        self.train_prompts = self._fitting(train)
        self.held_out = self._fitting(held_out)[: recipe.held_out]
        self.trained = self.setup.trained(self.setup.start_policy(), self.loss)
        reference = self.setup.start_policy()
        prepare_model(reference, self.setup.hardware)
        self.sampler = GroupSampler(
            self.setup, self._scorer(), reference, recipe.max_new_tokens, recipe.temperature
        )
        self.steps_per_iteration = recipe.epochs * recipe.minibatches
        self.iteration: GroupIteration | None = None
        self.stopped_early = False
        self.before = self._held_out_responses(reference)

    def train_spec(self) -> TrainSpec:
        """See `Session`."""
        steps = self.recipe.iterations * self.steps_per_iteration
        return self.setup.train_spec(
            self.trained.engine,
            self.batches,
            steps,
            checkpoint_every=self.steps_per_iteration,
            on_policy=True,
        )

    def batches(self, step: int) -> list[GroupBatch] | None:
        """This rank's micro-batches of a step; samples new responses at the start of an iteration."""
        recipe, (number, within) = self.recipe, divmod(step, self.steps_per_iteration)
        if within == 0:
            self.iteration = self._new_iteration(number)
            self.stopped_early = self.setup.exceeds_kl(self.iteration.kl, recipe.max_kl, number)
            if self.stopped_early:
                return None
        assert self.iteration is not None, f"step {step} is not the start of an iteration"
        epoch, part = divmod(within, recipe.minibatches)
        count = len(self.iteration.advantages)
        order = permutation(count, recipe.seed, "minibatches", number, epoch)
        responses = order[part :: recipe.minibatches] or order[:1]
        return group_micro_batches(
            self.setup, self.iteration, responses, recipe.aggregation, recipe.max_new_tokens
        )

    def loss(self, model: Decoder, batch: GroupBatch) -> tuple[Tensor, dict[str, Any]]:
        """A micro-batch's part of the step's loss."""
        recipe, device = self.recipe, self.setup.hardware.device
        flat = packed_log_probs(
            model,
            batch.packed.to(device),
            batch.positions.to(device),
            batch.targets.to(device),
            recipe.temperature,
        )
        mask, weights, old, reference, advantages = (
            tensor.to(device)
            for tensor in (
                batch.mask,
                batch.weights,
                batch.old_log_probs,
                batch.reference_log_probs,
                batch.advantages,
            )
        )
        log_probs = torch.zeros_like(old).masked_scatter(mask, flat)
        ratios = torch.exp(log_ratios(log_probs, old, mask, recipe.ratio))
        wide = advantages[:, None].expand_as(ratios)
        surrogate = clipped_surrogate(ratios, wide, recipe.clip_low, recipe.clip_high)
        losses = surrogate
        if recipe.clipping == "weight":
            losses = clipped_weight(log_probs, ratios, wide, recipe.clip_low, recipe.clip_high)
        if recipe.kl_coef:
            losses = losses + recipe.kl_coef * kl_penalty(log_probs, reference, ratios, recipe.kl_estimator)
        share = mask / batch.total if batch.total else torch.zeros_like(weights)
        return (losses * weights).sum(), batch.metrics | {
            "clipped": ((surrogate > -ratios * wide) * share).sum().detach(),
            "ratio_distance": ((ratios - 1).abs() * share).sum().detach(),
        }

    def finish(self) -> Metrics:
        """See `Session`."""
        stage, policy = self.context.stage, self.trained.whole()
        after = self._held_out_responses(policy)
        stopped = {"stopped_early": self.stopped_early}
        if self.setup.parallel.is_rank0:
            save_model(stage.path, policy, self.context.tokenizer, chat=True)
            return rollout_report(stage, self.held_out, self.before, after, self.recipe.seed) | stopped
        return stopped

    def _scorer(self) -> Scorer:
        recipe, reward_model = self.recipe, None
        if recipe.reward_model_weight:
            reward_model = RewardModel.load(self.context.inputs["reward"], self.setup.hardware)
        return Scorer(recipe.verifier, recipe.missing_eos_penalty, reward_model, recipe.reward_model_weight)

    def _fitting(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts that leave room for a response of full length, shuffled."""
        room = self.setup.shape.time - self.recipe.max_new_tokens
        order = permutation(len(prompts), self.recipe.seed, "prompts")
        fitting = [prompts[i] for i in order if len(self.setup.prompt_ids(prompts[i].messages)) <= room]
        if not fitting:
            raise DataError(
                f"grpo: none of {len(prompts)} prompts leaves room for max_new_tokens = {self.recipe.max_new_tokens} "
                f"in a context of {self.setup.shape.time}. Lower it, or raise the step's seq_len"
            )
        return fitting

    def _new_iteration(self, number: int) -> GroupIteration:
        recipe, policy = self.recipe, self.trained.whole()
        groups, sampled, equal = self._groups(policy, number)
        rollouts = groups.rollouts
        scores = groups.scores
        if recipe.overlong_buffer:
            lengths = rollouts.mask.sum(dim=1).float()
            scores = scores + overlong_penalty(lengths, recipe.max_new_tokens, recipe.overlong_buffer)
        advantages = group_advantages(scores.view(-1, recipe.group_size), recipe.advantages).flatten()
        in_loss = rollouts.mask & rollouts.ended[:, None] if recipe.overlong == "filter" else rollouts.mask
        difference = (groups.log_probs - rollouts.log_probs)[rollouts.mask].abs()
        importance = torch.ones_like(groups.log_probs)
        if recipe.sampler_cap:
            importance = sampler_weights(
                groups.log_probs, rollouts.log_probs, rollouts.mask, recipe.sampler_cap, recipe.ratio
            )
        kl = float(groups.kl().mean())
        metrics = {
            "reward": float(groups.scores.mean()),
            "kl": kl,
            "response_tokens": float(rollouts.mask.sum(dim=1).float().mean()),
            "ended": float(rollouts.ended.float().mean()),
            "equal_groups": equal / sampled,
            "sampler_difference": float(difference.max()),
        } | self._parts(groups)
        return GroupIteration(groups, advantages, in_loss, importance, kl, metrics)

    def _parts(self, groups: GroupRollouts) -> dict[str, float]:
        """The mean of each part of the scores; parts that a response's verifier does not have are left out of it."""
        names = dict.fromkeys(name for parts in groups.parts for name in parts)
        values = {name: [parts[name] for parts in groups.parts if name in parts] for name in names}
        return {f"score_{name}": sum(each) / len(each) for name, each in values.items()}

    def _groups(self, policy: Decoder, number: int) -> tuple[GroupRollouts, int, int]:
        """An iteration's groups, the number of groups sampled for them, and how many of those had equal scores."""
        recipe, rounds = self.recipe, 1 + self.recipe.max_resamples
        useful: list[GroupRollouts] = []
        sampled = equal = 0
        for at in range(number * rounds, (number + 1) * rounds):
            chosen = epoch_indices(at, len(self.train_prompts), recipe.prompts, recipe.seed, "prompts")
            seed = derive_seed(recipe.seed, "rollouts", at)
            prompts = [self.train_prompts[i] for i in chosen]
            groups = self.sampler.sample(policy, prompts, recipe.group_size, seed)
            same = equal_groups(groups.scores.view(-1, recipe.group_size)).tolist()
            sampled, equal = sampled + len(same), equal + sum(same)
            if not recipe.max_resamples:
                return groups, sampled, equal
            useful += [groups.select(self._rows(group)) for group, one in enumerate(same) if not one]
            if len(useful) >= recipe.prompts:
                break
        # Without any useful group a step needs some responses all the same: their advantages are 0.
        return GroupRollouts.concatenate(useful[: recipe.prompts] or [groups]), sampled, equal

    def _rows(self, group: int) -> list[int]:
        return list(range(group * self.recipe.group_size, (group + 1) * self.recipe.group_size))

    def _held_out_responses(self, policy: Decoder) -> Responses:
        """Responses to the held-out prompts, with the same random numbers for every policy."""
        seed = derive_seed(self.recipe.seed, "held-out answers")
        groups = self.sampler.sample(policy, self.held_out, 1, seed)
        return to_responses(groups.rollouts, groups.scores, groups.kl(), self.context.tokenizer)
