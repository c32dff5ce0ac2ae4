"""Method: PPO. A policy responds, a reward model scores, and the policy is updated towards responses that scored well.

in:  an initial policy (the reference policy), a reward model, questions
out: the policy, and its responses to held-out questions before and after

Schulman et al. 2017 (arXiv:1707.06347) as Ouyang et al. 2022 (arXiv:2203.02155) apply it to language: one reward at the
end of a response, a KL penalty per token against the reference policy, a critic initialised from the reward model. We
differ in two points: training stops early when the mean KL divergence of a response exceeds `max_kl`, and a response
without an end-of-turn token is penalised by `missing_eos_penalty`.

An iteration samples responses, scores them, then takes `epochs * minibatches` steps on them. It depends only on the
weights at its start and its number, so training resumes at iteration boundaries. With several ranks each data-parallel
rank samples and scores a part of the responses with a whole copy of the models; statistics are over all of them.

A high reward is not a right answer. So responses are also compared with the true answers (chrF), which is never part of
the reward: a reward that rises while chrF falls indicates over-optimisation of the reward model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from groundup.align.kl_controller import KlController
from groundup.align.methods import Method, MethodContext, Session
from groundup.align.objectives import (
    gae,
    kl_k1,
    masked_mean,
    ppo_policy_loss,
    scaled,
    token_rewards,
    value_loss,
    whiten,
)
from groundup.align.packing import PackedBatch, epoch_indices, permutation
from groundup.align.report import Responses, rollout_report, to_responses
from groundup.align.rollout_batches import local_micro_batches
from groundup.align.rollouts import (
    RewardModel,
    Rollouts,
    ScoredRollouts,
    packed_log_probs,
    response_positions,
    rollout_log_probs,
    rollout_values,
    sample,
)
from groundup.align.session import SessionSetup
from groundup.core.errors import DataError
from groundup.core.records import Prompt
from groundup.core.registry import Plugin
from groundup.core.rng import derive_seed
from groundup.core.stage import ArtifactKind, Metrics
from groundup.evaluate.alignment_data import RecordKind
from groundup.evaluate.score import chat_engine
from groundup.model.checkpoint import load_value_model, save_model
from groundup.model.decoder import Decoder
from groundup.model.value_head import ValueModel
from groundup.parallel.hardware import prepare_model
from groundup.train.loop import TrainSpec
from groundup.train.optimizers import Optimizer
from groundup.train.optimizers.adamw import AdamW

MICRO_ROWS = 8
"""Maximum rows of a micro-batch: about a minibatch of short responses, and the shape that the other methods compile."""


class Ppo(Method):
    """PPO against a reward model, with a KL penalty against the reference policy."""

    version: ClassVar[int] = 3
    inputs: ClassVar[Mapping[str, ArtifactKind]] = {"start": "policy", "reward": "reward_model"}
    learns_from: ClassVar[frozenset[RecordKind]] = frozenset({"prompts"})
    output: ClassVar[ArtifactKind] = "policy"
    headline: ClassVar[tuple[str, ...]] = ("reward_before", "reward_after", "kl", "chrf_before", "chrf_after")

    optimizer: Annotated[Optimizer, Plugin("groundup.train.optimizers")] = AdamW(lr=5e-5, weight_decay=0.0)
    iterations: int = Field(default=10, ge=1, description="iterations; each samples new responses")
    rollout_batch_size: int = Field(default=192, ge=1, description="responses sampled per iteration")
    epochs: int = Field(default=2, ge=1, description="passes over an iteration's responses")
    minibatches: int = Field(default=3, ge=1, description="optimizer steps per epoch")
    max_new_tokens: int = Field(default=96, ge=1, description="maximum tokens of a response")
    temperature: float = Field(
        default=1.0, gt=0, description="sampling temperature, also of the log-probabilities"
    )
    kl_coef: float = Field(
        default=0.1, ge=0, description="KL penalty coefficient against the reference policy"
    )
    kl_target: float = Field(
        default=0.0,
        ge=0,
        description="KL divergence of a response (nats) that kl_coef is adapted to; 0 = kl_coef is constant",
    )
    kl_horizon: float = Field(default=10_000, gt=0, description="responses over which kl_coef adapts")
    max_kl: float = Field(
        default=20.0,
        gt=0,
        description="stop early when a response's mean KL divergence from the reference policy exceeds this (nats)",
    )
    missing_eos_penalty: float = Field(
        default=1.0, ge=0, description="subtracted from the score of a response without an end-of-turn token"
    )
    gamma: float = Field(default=1.0, gt=0, le=1, description="discount factor per token")
    lam: float = Field(default=1.0, ge=0, le=1, description="lambda of generalised advantage estimation")
    clip_range: float = Field(default=0.2, gt=0, description="clip range of the policy's probability ratio")
    value_clip: float = Field(default=1.0, gt=0, description="clip range of the critic's values")
    whiten_rewards: bool = Field(default=False, description="divide rewards by their standard deviation")
    value_iterations: int = Field(default=0, ge=0, description="first iterations that train the critic alone")
    value_coef: float = Field(default=0.5, ge=0, description="coefficient of the critic's loss")
    held_out: int = Field(
        default=256, ge=2, description="held-out questions to which responses are compared before and after"
    )

    def without_effect(self) -> dict[str, str]:
        """See `Strict`."""
        unused = {} if self.value_coef else {"value_clip": "value_coef = 0"}
        if self.epochs * self.minibatches == 1:
            unused["clip_range"] = "with one step per iteration the policy is still the one that sampled"
        if self.iterations == 1:
            unused["max_kl"] = "it is compared between iterations, and there is one"
        return unused

    def prepare(self, context: MethodContext) -> Session:
        """Load the models and sample responses to the held-out questions."""
        return PpoSession(self, context)


class ActorCritic(nn.Module):
    """The trained models: the policy and, without shared weights, the critic."""

    def __init__(self, policy: Decoder, critic: ValueModel) -> None:
        super().__init__()
        self.policy, self.critic = policy, critic


@dataclass(frozen=True)
class _Iteration:
    """An iteration's responses with everything that the losses need, fixed at its start."""

    rollouts: Rollouts
    old_log_probs: Float[Tensor, "responses time"]
    old_values: Float[Tensor, "responses time"]
    advantages: Float[Tensor, "responses time"]
    returns: Float[Tensor, "responses time"]
    kl: float
    policy_weight: float
    """0 while the critic alone is trained, else 1"""
    metrics: dict[str, float]


@dataclass(frozen=True)
class PpoBatch:
    """A micro-batch. Per-token tensors are flat over its responses' tokens."""

    packed: PackedBatch
    positions: Int[Tensor, " tokens"]
    targets: Int[Tensor, " tokens"]
    mask: Bool[Tensor, " tokens"]
    """false where the token has no loss: all of a micro-batch that only keeps this rank in step with the others"""
    old_log_probs: Float[Tensor, " tokens"]
    old_values: Float[Tensor, " tokens"]
    advantages: Float[Tensor, " tokens"]
    returns: Float[Tensor, " tokens"]
    total: float
    """tokens of the whole step, on all ranks"""
    policy_weight: float
    """of the policy's loss: 0 while the critic alone is trained, else 1"""
    metrics: dict[str, float]
    """the iteration's metrics, divided by the ranks, with each rank's first micro-batch: metrics are summed"""


class PpoSession:
    """A training with PPO."""

    def __init__(self, recipe: Ppo, context: MethodContext) -> None:
        self.recipe, self.context = recipe, context
        self.setup = SessionSetup.create(recipe, context, MICRO_ROWS, divide_rows=False)
        hardware = self.setup.hardware
        critic = load_value_model(context.inputs["reward"], hardware.device)
        self.trained = self.setup.trained(ActorCritic(self.setup.start_policy(), critic), self.loss)
        self.reference = self.setup.start_policy()
        prepare_model(self.reference, hardware)
        self.reward_model = RewardModel.load(context.inputs["reward"], hardware)
        train, held_out = context.both_splits("prompts")
        self.train_questions = self._questions(train, recipe.iterations * recipe.rollout_batch_size)
        self.held_out = self._questions(held_out, recipe.held_out)
        self.steps_per_iteration = recipe.epochs * recipe.minibatches
        self.steps = recipe.iterations * self.steps_per_iteration
        self.kl_controller = KlController(
            context.stage.temporary, self.setup.parallel, recipe.kl_coef, recipe.kl_target, recipe.kl_horizon
        )
        self.iteration: _Iteration | None = None
        self.stopped_early = False
        self.before = self._held_out_responses(self.reference)

    def train_spec(self) -> TrainSpec:
        """See `Session`."""
        return self.setup.train_spec(
            self.trained.engine,
            self.batches,
            self.steps,
            checkpoint_every=self.steps_per_iteration,
            on_policy=True,
        )

    def batches(self, step: int) -> list[PpoBatch] | None:
        """This rank's micro-batches of a step; samples new responses at the start of an iteration."""
        recipe, (number, within) = self.recipe, divmod(step, self.steps_per_iteration)
        if within == 0:
            self.iteration = self._new_iteration(number)
            self.stopped_early = self.setup.exceeds_kl(self.iteration.kl, recipe.max_kl, number)
            if self.stopped_early:
                return None
        assert self.iteration is not None, f"step {step} is not the start of an iteration"
        epoch, part = divmod(within, recipe.minibatches)
        order = permutation(recipe.rollout_batch_size, recipe.seed, "minibatches", number, epoch)
        return self._minibatch(self.iteration, order[part :: recipe.minibatches])

    def loss(self, model: ActorCritic, batch: PpoBatch) -> tuple[Tensor, dict[str, Any]]:
        """A micro-batch's part of the step's mean loss per token: the policy's and the critic's."""
        recipe, device = self.recipe, self.setup.hardware.device
        packed, positions = batch.packed.to(device), batch.positions.to(device)
        log_probs = packed_log_probs(
            model.policy, packed, positions, batch.targets.to(device), recipe.temperature
        )
        values = self.reward_model.normalised(
            model.critic.values(packed.ids, packed.segments).flatten()[positions]
        )
        mask, old_log_probs, advantages, old_values, returns = (
            tensor.to(device)[None]
            for tensor in (batch.mask, batch.old_log_probs, batch.advantages, batch.old_values, batch.returns)
        )
        policy = ppo_policy_loss(
            log_probs[None], old_log_probs, advantages, mask, recipe.clip_range, batch.total
        )
        value = value_loss(values[None], old_values, returns, mask, recipe.value_clip, batch.total)
        return batch.policy_weight * policy.loss + recipe.value_coef * value.loss, batch.metrics | {
            "policy_loss": policy.loss,
            "value_loss": value.loss,
            "clipped": policy.clipped,
        }

    def finish(self) -> Metrics:
        """See `Session`."""
        stage, policy = self.context.stage, self.trained.whole().policy
        after = self._held_out_responses(policy)
        stopped = {"stopped_early": self.stopped_early}
        if self.setup.parallel.is_rank0:
            save_model(stage.path, policy, self.context.tokenizer, chat=True)
            return rollout_report(stage, self.held_out, self.before, after, self.recipe.seed) | stopped
        return stopped

    def _questions(self, prompts: Sequence[Prompt], count: int) -> list[Prompt]:
        """`count` questions that leave room for a response of full length."""
        time, max_new_tokens = self.setup.shape.time, self.recipe.max_new_tokens
        order = permutation(len(prompts), self.recipe.seed, "questions")
        fitting = (
            prompts[i]
            for i in order
            if len(self.setup.prompt_ids(prompts[i].messages)) <= time - max_new_tokens
        )
        questions = list(islice(fitting, count))
        if not questions:
            raise DataError(
                f"ppo: none of {len(prompts)} questions leaves room for max_new_tokens = {max_new_tokens} in a "
                f"packed sequence of {time} tokens. Lower it, or raise the step's seq_len (limit: the model's context)"
            )
        return questions

    def _scored_rollouts(
        self, policy: Decoder, critic: ValueModel | None, questions: Sequence[Prompt], seed: int
    ) -> ScoredRollouts:
        """A response to each question, with the models' numbers; each data-parallel rank computes a part."""
        recipe, tokenizer, shape = self.recipe, self.context.tokenizer, self.setup.shape
        engine = chat_engine(policy, tokenizer)

        def compute(part: Sequence[Prompt], first: int) -> ScoredRollouts:
            prompts = [self.setup.prompt_ids(question.messages) for question in part]
            rollouts = sample(
                engine, prompts, recipe.max_new_tokens, recipe.temperature, seed, tokenizer.end_of_turn, first
            )
            log_probs, reference_log_probs = (
                rollout_log_probs(model, rollouts, shape, recipe.temperature)
                for model in (policy, self.reference)
            )
            values = torch.zeros_like(log_probs)
            if critic is not None:
                values = self.reward_model.normalised(rollout_values(critic, rollouts, shape)) * rollouts.mask
            scores = self.reward_model.scores(rollouts.sequences(), shape)
            scores = scores - recipe.missing_eos_penalty * (~rollouts.ended).float()
            return ScoredRollouts(rollouts, log_probs, reference_log_probs, values, scores)

        return ScoredRollouts.concatenate(self.setup.divided(questions, compute))

    def _new_iteration(self, number: int) -> _Iteration:
        recipe, model = self.recipe, self.trained.whole()
        chosen = epoch_indices(
            number, len(self.train_questions), recipe.rollout_batch_size, recipe.seed, "questions"
        )
        questions = [self.train_questions[i] for i in chosen]
        seed = derive_seed(recipe.seed, "rollouts", number)
        scored = self._scored_rollouts(model.policy, model.critic, questions, seed)
        mask, values = scored.rollouts.mask, scored.values
        log_ratios = scored.log_probs - scored.reference_log_probs
        kl_coef = self.kl_controller.coef(number)
        rewards = token_rewards(scored.scores, log_ratios, mask, kl_coef)
        if recipe.whiten_rewards:
            rewards = scaled(rewards, mask)
        estimate = gae(rewards, values, mask, recipe.gamma, recipe.lam)
        kl = float((kl_k1(log_ratios) * mask).sum(dim=1).mean())
        self.kl_controller.observe(number, kl, len(questions))
        metrics = {
            "reward": float(scored.scores.mean()),
            "kl": kl,
            "kl_coef": kl_coef,
            "sampler_difference": float((scored.log_probs - scored.rollouts.log_probs)[mask].abs().max()),
            "response_tokens": float(mask.sum(dim=1).float().mean()),
            "ended": float(scored.rollouts.ended.float().mean()),
            "value_error": float(masked_mean((estimate.returns - values).square(), mask)),
        }
        return _Iteration(
            scored.rollouts,
            scored.log_probs,
            values,
            whiten(estimate.advantages, mask),
            estimate.returns,
            kl,
            float(number >= recipe.value_iterations),
            metrics,
        )

    def _minibatch(self, iteration: _Iteration, responses: Sequence[int]) -> list[PpoBatch]:
        """This rank's micro-batches of one step, as many as every other rank has."""
        total = float(iteration.rollouts.mask[list(responses)].sum())

        def build(part: Sequence[int], packed: PackedBatch) -> PpoBatch:
            return self._batch(iteration, part, packed, total)

        batches = local_micro_batches(self.setup, iteration.rollouts, responses, build, _without_loss)
        ranks = self.setup.parallel.dp_size
        metrics = {name: value / ranks for name, value in iteration.metrics.items()}
        return [replace(batches[0], metrics=metrics), *batches[1:]]

    def _batch(
        self, iteration: _Iteration, responses: Sequence[int], packed: PackedBatch, total: float
    ) -> PpoBatch:
        chosen = iteration.rollouts.select(responses)
        indices, positions = response_positions(chosen, packed.spans)
        mask, source = chosen.mask[indices], torch.tensor(responses)[indices]
        return PpoBatch(
            packed=packed,
            positions=positions[mask],
            targets=chosen.ids[indices][mask],
            mask=torch.ones(int(mask.sum()), dtype=torch.bool),
            old_log_probs=iteration.old_log_probs[source][mask],
            old_values=iteration.old_values[source][mask],
            advantages=iteration.advantages[source][mask],
            returns=iteration.returns[source][mask],
            total=total,
            policy_weight=iteration.policy_weight,
            metrics={},
        )

    def _held_out_responses(self, policy: Decoder) -> Responses:
        """Responses to the held-out questions, with the same random numbers for every policy."""
        seed = derive_seed(self.recipe.seed, "held-out answers")
        scored = self._scored_rollouts(policy, None, self.held_out, seed)
        log_ratios = scored.log_probs - scored.reference_log_probs
        kl = (kl_k1(log_ratios) * scored.rollouts.mask).sum(dim=1)
        return to_responses(scored.rollouts, scored.scores, kl, self.context.tokenizer)


def _without_loss(batch: PpoBatch) -> PpoBatch:
    return replace(batch, mask=torch.zeros_like(batch.mask))
