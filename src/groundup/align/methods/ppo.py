"""Method: PPO. A policy answers, a reward model scores, and the policy moves towards what scored well.

in:  a start policy, a reward model, questions
out: the policy, and how it answers held-out questions before and after

Schulman et al. 2017 (arXiv:1707.06347) as Ouyang et al. 2022 (arXiv:2203.02155) apply it to language: one reward
at the end of an answer, a penalty per token for leaving the start policy, a critic that starts as the reward
model. We differ in the end: training stops early when the mean KL divergence of an answer exceeds `max_kl`, and
an answer that doesn't end itself pays `missing_eos_penalty`.

A phase is: sample answers, score them, then take `epochs * minibatches` steps on them. All of a phase follows from
the weights at its start and its number, so training resumes at phase starts.

What the reward model likes isn't what is right. So answers are also compared with the true ones (chrF), which is
never part of the reward: a reward that rises while chrF falls is a reward model being fooled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from groundup.align.data import PackedBatch, chosen_at, pack_all, permutation
from groundup.align.methods import Method, MethodContext, Session
from groundup.align.objectives import (
    gae,
    kl_k1,
    masked_mean,
    ppo_policy_loss,
    token_rewards,
    value_loss,
    whiten,
)
from groundup.align.report import Answers, answers_of, ppo_report
from groundup.align.rollouts import (
    RewardModel,
    Rollouts,
    Shape,
    answer_log_probs,
    answer_values,
    sample,
    states,
)
from groundup.core.errors import DataError
from groundup.core.registry import Plugin
from groundup.core.rng import derive_seed
from groundup.core.stage import ArtifactKind, Metrics
from groundup.evaluate.tasks import Example
from groundup.infer.engine import Engine
from groundup.model.checkpoint import load_decoder, save_model
from groundup.model.decoder import Decoder
from groundup.model.losses import token_log_probs
from groundup.model.value_head import ValueModel
from groundup.parallel.hardware import choose_hardware, micro_batch_rows, prepare_model
from groundup.tokens.chat import prompt
from groundup.train.optimizers import Optimizer
from groundup.train.optimizers.adamw import AdamW

MICRO_ROWS = 8
"""Most rows of a micro-batch: about a minibatch of short answers, and the shape that the other methods compile."""


class Ppo(Method):
    """Move towards what the reward model likes, not far from the start."""

    version: ClassVar[int] = 3
    inputs: ClassVar[Mapping[str, ArtifactKind]] = {"start": "policy", "reward": "reward_model"}
    output: ClassVar[ArtifactKind] = "policy"

    optimizer: Annotated[Optimizer, Plugin("groundup.train.optimizers")] = AdamW(lr=5e-5, weight_decay=0.0)
    iterations: int = Field(default=10, ge=1, description="how often new answers are sampled")
    rollout_batch_size: int = Field(default=192, ge=1, description="answers per phase")
    epochs: int = Field(default=2, ge=1, description="how often each answer is learnt from")
    minibatches: int = Field(default=3, ge=1, description="steps per epoch")
    max_new_tokens: int = Field(default=96, ge=1, description="longest answer")
    temperature: float = Field(default=1.0, gt=0, description="of the answers, in sampling and in training")
    kl_coef: float = Field(default=0.1, ge=0, description="price of a nat away from the start policy")
    max_kl: float = Field(
        default=20.0, gt=0, description="end when an answer is this many nats away, on average"
    )
    missing_eos_penalty: float = Field(
        default=1.0, ge=0, description="off the score of an answer that doesn't end"
    )
    gamma: float = Field(default=1.0, gt=0, le=1, description="discount per token")
    lam: float = Field(default=1.0, ge=0, le=1, description="GAE's lambda")
    clip_range: float = Field(
        default=0.2, gt=0, description="how far the policy may move on one phase's answers"
    )
    value_clip: float = Field(default=1.0, gt=0, description="how far the critic may move on them")
    value_coef: float = Field(default=0.5, ge=0, description="weight of the critic's loss")
    held_out: int = Field(default=256, ge=2, description="held-out questions answered before and after")

    def prepare(self, given: MethodContext) -> Session:
        """Load policy, start policy, reward model and critic; answer the held-out questions for the first time."""
        return _Aligning(self, given)


class _ActorCritic(nn.Module):
    """What is trained: the policy and, apart from it, the critic."""

    def __init__(self, policy: Decoder, critic: ValueModel) -> None:
        super().__init__()
        self.policy, self.critic = policy, critic


@dataclass(frozen=True)
class _Phase:
    """Answers with everything the losses need, frozen at the phase's start. Tensors are [answers, time]."""

    rollouts: Rollouts
    old_log_probs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor
    kl: float
    figures: dict[str, float]


@dataclass(frozen=True)
class _Batch:
    """A micro-batch. Per-token tensors are flat over its answers' tokens; `total`: tokens in the whole step."""

    packed: PackedBatch
    positions: Int[Tensor, " tokens"]
    targets: Int[Tensor, " tokens"]
    old_log_probs: Float[Tensor, " tokens"]
    old_values: Float[Tensor, " tokens"]
    advantages: Float[Tensor, " tokens"]
    returns: Float[Tensor, " tokens"]
    total: float
    figures: dict[str, float]


class _Aligning:
    """The session."""

    label = "ppo"
    depends_on_weights = True

    def __init__(self, recipe: Ppo, given: MethodContext) -> None:
        self.recipe, self.given = recipe, given
        self.hardware = choose_hardware(given.runtime, recipe.precision)
        self.start, policy = (self._policy() for _ in range(2))
        self.judge, critic = (RewardModel.load(given.reads["reward"], self.hardware) for _ in range(2))
        self.model = _ActorCritic(policy, critic.model)
        time, self.d_model = policy.config.max_seq_len, policy.config.d_model
        rows = micro_batch_rows(given.runtime, policy.config, time, MICRO_ROWS, self.hardware.device)
        self.shape = Shape(rows, time, given.tokenizer.pad)
        self.train = self._questions(given.train, recipe.iterations * recipe.rollout_batch_size)
        self.held_out = self._questions(given.held_out, recipe.held_out)
        self.boundary = recipe.epochs * recipe.minibatches
        self.steps = recipe.iterations * self.boundary
        self.tokens_per_step = 0
        self.phase: _Phase | None = None
        self.stopped_at: int | None = None
        self.before = self._held_out_answers(self.start)

    def batches(self, step: int) -> Sequence[_Batch] | None:
        """Sample at the start of a phase; then deal its answers out to minibatches."""
        recipe, (number, within) = self.recipe, divmod(step, self.boundary)
        if within == 0:
            self.phase = self._new_phase(number)
            if self.phase.kl > recipe.max_kl:
                self.stopped_at = number
                self.given.out.info(
                    f"stopped after {number} phases: answers are {self.phase.kl:.1f} nats away"
                )
                return None
        assert self.phase is not None, f"step {step} is not the start of a phase"
        epoch, part = divmod(within, recipe.minibatches)
        order = permutation(recipe.rollout_batch_size, recipe.seed, "minibatches", number, epoch)
        return self._minibatch(self.phase, order[part :: recipe.minibatches])

    def loss(self, model: nn.Module, batch: _Batch) -> tuple[Tensor, dict[str, Any]]:
        recipe, device = self.recipe, self.hardware.device
        packed, positions = batch.packed.to(device), batch.positions.to(device)
        policy_model = self.model.policy
        hidden = policy_model.hidden(packed.ids, packed.segments).flatten(0, 1)[positions]
        log_probs = token_log_probs(
            hidden[None],
            policy_model.head_weight,
            batch.targets.to(device)[None],
            recipe.temperature,
            policy_model.config.logit_softcap,
        )
        values = self.judge.normalised(
            self.model.critic.values(packed.ids, packed.segments).flatten()[positions]
        )
        every = torch.ones_like(log_probs, dtype=torch.bool)
        old, advantages, old_values, returns = (
            tensor.to(device)[None]
            for tensor in (batch.old_log_probs, batch.advantages, batch.old_values, batch.returns)
        )
        policy = ppo_policy_loss(log_probs, old, advantages, every, recipe.clip_range, batch.total)
        value = value_loss(values[None], old_values, returns, every, recipe.value_clip, batch.total)
        return policy.loss + recipe.value_coef * value.loss, batch.figures | {
            "policy_loss": policy.loss,
            "value_loss": value.loss,
            "clipped": policy.clipped,
        }

    def finish(self) -> Metrics:
        given = self.given
        save_model(given.out.path, self.model.policy, given.tokenizer)
        after = self._held_out_answers(self.model.policy)
        stopped = {"stopped_early": self.stopped_at is not None}
        return ppo_report(given.out, self.held_out, self.before, after, self.recipe.seed) | stopped

    def _policy(self) -> Decoder:
        policy = load_decoder(self.given.reads["start"], self.hardware.device)
        prepare_model(policy, self.hardware)
        return policy

    def _questions(self, examples: Sequence[Example], count: int) -> list[Example]:
        """`count` of those that leave room for an answer of full length."""
        room = self.shape.time - self.recipe.max_new_tokens
        order = permutation(len(examples), self.recipe.seed, "questions")
        fitting = (examples[i] for i in order if len(self._prompt(examples[i])) <= room)
        chosen = list(islice(fitting, count))
        if not chosen:
            raise DataError(
                f"ppo: none of {len(examples)} questions leaves room for max_new_tokens = "
                f"{self.recipe.max_new_tokens} in a context of {self.shape.time}. Lower it, or raise tokenize.seq_len"
            )
        return chosen

    def _prompt(self, example: Example) -> list[int]:
        return prompt(example.conversation().messages[:-1], self.given.tokenizer)

    def _sample(self, policy: Decoder, examples: Sequence[Example], seed: int) -> Rollouts:
        tokenizer, recipe = self.given.tokenizer, self.recipe
        stop = {tokenizer.end_of_turn, tokenizer.eos, tokenizer.bos}
        engine = Engine(policy, stop, tokenizer.pad, self.shape.time)
        prompts = [self._prompt(example) for example in examples]
        return sample(engine, prompts, recipe.max_new_tokens, recipe.temperature, seed, tokenizer.end_of_turn)

    def _scores(self, rollouts: Rollouts) -> Float[Tensor, " answers"]:
        scores = self.judge.scores(rollouts.sequences(), self.shape)
        return scores - self.recipe.missing_eos_penalty * (~rollouts.ended).float()

    def _new_phase(self, number: int) -> _Phase:
        recipe, policy = self.recipe, self.model.policy
        taken = chosen_at(number, len(self.train), recipe.rollout_batch_size, recipe.seed, "questions")
        seed = derive_seed(recipe.seed, "rollouts", number)
        rollouts = self._sample(policy, [self.train[i] for i in taken], seed)
        mask: Bool[Tensor, "answers time"] = rollouts.mask
        old, start = (
            answer_log_probs(one, rollouts, self.shape, recipe.temperature) for one in (policy, self.start)
        )
        values = self.judge.normalised(answer_values(self.model.critic, rollouts, self.shape)) * mask
        scores = self._scores(rollouts)
        rewards = token_rewards(scores, old - start, mask, recipe.kl_coef)
        found = gae(rewards, values, mask, recipe.gamma, recipe.lam)
        kl = float((kl_k1(old - start) * mask).sum(dim=1).mean())
        figures = {
            "reward": float(scores.mean()),
            "kl": kl,
            "answer_tokens": float(mask.sum(dim=1).float().mean()),
            "ended": float(rollouts.ended.float().mean()),
            "value_error": float(masked_mean((found.returns - values).square(), mask)),
        }
        return _Phase(rollouts, old, values, whiten(found.advantages, mask), found.returns, kl, figures)

    def _minibatch(self, phase: _Phase, answers: Sequence[int]) -> list[_Batch]:
        """The micro-batches of one step. The phase's figures go with the first, since metrics are summed."""
        sequences = phase.rollouts.sequences()
        groups = [[sequences[i]] for i in answers]
        total = float(phase.rollouts.mask[list(answers)].sum())
        found: list[_Batch] = []
        chosen = phase.rollouts.pick(answers)
        for packed in pack_all(groups, self.shape.rows, self.shape.time, self.shape.pad):
            which, positions = states(chosen, packed.places)
            mask, source = chosen.mask[which], torch.tensor(answers)[which]
            found.append(
                _Batch(
                    packed=packed,
                    positions=positions[mask],
                    targets=chosen.ids[which][mask],
                    old_log_probs=phase.old_log_probs[source][mask],
                    old_values=phase.old_values[source][mask],
                    advantages=phase.advantages[source][mask],
                    returns=phase.returns[source][mask],
                    total=total,
                    figures={} if found else phase.figures,
                )
            )
        return found

    def _held_out_answers(self, policy: Decoder) -> Answers:
        """The same questions with the same random numbers, whatever the policy."""
        rollouts = self._sample(policy, self.held_out, derive_seed(self.recipe.seed, "held-out answers"))
        log_probs, start = (
            answer_log_probs(one, rollouts, self.shape, self.recipe.temperature)
            for one in (policy, self.start)
        )
        kl = (kl_k1(log_probs - start) * rollouts.mask).sum(dim=1)
        return answers_of(rollouts, self._scores(rollouts), kl, self.given.tokenizer)
