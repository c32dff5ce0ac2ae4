"""Samples responses to prompts, and computes log-probabilities, values and scores of them.

in:  prompts and a generation engine; policies, critics and reward models
out: Rollouts: responses as padded tensors [responses, time]; log-probabilities, values and scores of the same shape

All forward passes here use training's kernels: packed rows of the training's shape, with gradients enabled though
unused. So PPO's old log-probabilities are exactly what the loss computes before its first update.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.align.packing import PackedBatch, PackedSpan, pack_all
from groundup.infer.engine import Engine
from groundup.model.checkpoint import load_value_model
from groundup.model.decoder import Decoder
from groundup.model.value_head import ValueModel
from groundup.parallel.context import heartbeat
from groundup.parallel.hardware import Hardware, prepare_model

REWARD_FILE = "reward.json"
"""Beside a reward model's weights: mean and standard deviation of its scores of held-out right answers."""


@dataclass(frozen=True)
class BatchShape:
    """The fixed shape of a micro-batch, and the id that pads it."""

    rows: int
    time: int
    pad: int


@dataclass(frozen=True)
class Rollouts:
    """Prompts and their responses. Time counts a response's tokens; the mask is true on them."""

    prompts: list[list[int]]
    responses: list[list[int]]
    ended: Bool[Tensor, " responses"]
    """whether the response ended with the end-of-turn token"""
    ids: Int[Tensor, "responses time"]
    mask: Bool[Tensor, "responses time"]
    log_probs: Float[Tensor, "responses time"]
    """as the generation engine sampled them"""

    def sequences(self) -> list[list[int]]:
        """Prompt and response."""
        return [prompt + response for prompt, response in zip(self.prompts, self.responses, strict=True)]

    def select(self, indices: Sequence[int]) -> "Rollouts":
        """The responses with these indices, in their order."""
        rows = torch.tensor(list(indices))
        return Rollouts(
            [self.prompts[i] for i in indices],
            [self.responses[i] for i in indices],
            self.ended[rows],
            self.ids[rows],
            self.mask[rows],
            self.log_probs[rows],
        )

    @staticmethod
    def concatenate(parts: Sequence["Rollouts"]) -> "Rollouts":
        """All responses of `parts`, in order."""
        return Rollouts(
            [prompt for part in parts for prompt in part.prompts],
            [response for part in parts for response in part.responses],
            torch.cat([part.ended for part in parts]),
            torch.cat([part.ids for part in parts]),
            torch.cat([part.mask for part in parts]),
            torch.cat([part.log_probs for part in parts]),
        )


@dataclass(frozen=True)
class ScoredRollouts:
    """Responses with what the models compute of them. Per-token tensors are [responses, time]."""

    rollouts: Rollouts
    log_probs: Float[Tensor, "responses time"]
    reference_log_probs: Float[Tensor, "responses time"]
    values: Float[Tensor, "responses time"]
    scores: Float[Tensor, " responses"]

    @staticmethod
    def concatenate(parts: Sequence["ScoredRollouts"]) -> "ScoredRollouts":
        """All responses of `parts`, in order."""
        return ScoredRollouts(
            Rollouts.concatenate([part.rollouts for part in parts]),
            torch.cat([part.log_probs for part in parts]),
            torch.cat([part.reference_log_probs for part in parts]),
            torch.cat([part.values for part in parts]),
            torch.cat([part.scores for part in parts]),
        )


def sample(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    seed: int,
    end_of_turn: int,
    first_key: int = 0,
    on_done: Callable[[int], None] | None = None,
) -> Rollouts:
    """One response per prompt. first_key: the first prompt's number, which its random numbers depend on."""
    keys = range(first_key, first_key + len(prompts))
    completions = engine.generate(
        prompts, max_new_tokens, temperature, seed=seed, keys=keys, on_done=on_done or _count_as_heartbeat
    )
    responses = [completion.ids for completion in completions]
    return Rollouts(
        prompts=[list(prompt) for prompt in prompts],
        responses=responses,
        ended=torch.tensor([response[-1] == end_of_turn for response in responses]),
        ids=_padded(responses, max_new_tokens).long(),
        mask=_padded([[1.0] * len(response) for response in responses], max_new_tokens) > 0,
        log_probs=_padded([completion.log_probs for completion in completions], max_new_tokens),
    )


def response_positions(
    rollouts: Rollouts, spans: Sequence[PackedSpan]
) -> tuple[Int[Tensor, " packed"], Int[Tensor, "packed time"]]:
    """The responses in a micro-batch, and for each of their tokens the flat position that predicts it.

    That is the position before the token. Beyond a response's end the positions have no meaning and the mask is false.
    """
    indices = torch.tensor([span.group for span in spans])
    firsts = torch.tensor([span.start + len(rollouts.prompts[span.group]) - 1 for span in spans])
    positions = firsts[:, None] + torch.arange(rollouts.ids.shape[1])[None]
    return indices, positions * rollouts.mask[indices]


def packed_log_probs(
    policy: Decoder,
    packed: PackedBatch,
    positions: Int[Tensor, " tokens"],
    targets: Int[Tensor, " tokens"],
    temperature: float,
) -> Float[Tensor, " tokens"]:
    """log p(target) at flat positions of a micro-batch, under softmax(logits / temperature)."""
    hidden = policy.hidden(packed.ids, packed.segments).flatten(0, 1)[positions]
    return policy.token_log_probs(
        hidden[None], policy.head_weight, targets[None], temperature, policy.config.logit_softcap
    )[0]


def rollout_log_probs(
    policy: Decoder, rollouts: Rollouts, shape: BatchShape, temperature: float
) -> Float[Tensor, "responses time"]:
    """log p of every token of every response under `policy`; 0 beyond a response's end. On the CPU."""
    log_probs = torch.zeros(rollouts.ids.shape)
    for packed in _pack(rollouts.sequences(), shape, policy.head_weight.device):
        indices, positions = response_positions(rollouts, packed.spans)
        mask, device = rollouts.mask[indices], packed.ids.device
        targets = rollouts.ids[indices][mask].to(device)
        with torch.enable_grad():
            values = packed_log_probs(policy, packed, positions[mask].to(device), targets, temperature)
        log_probs[indices] = torch.zeros(mask.shape).masked_scatter(mask, values.detach().cpu())
    return log_probs


def rollout_values(
    critic: ValueModel, rollouts: Rollouts, shape: BatchShape
) -> Float[Tensor, "responses time"]:
    """The critic's value before every token of every response; 0 beyond a response's end. On the CPU."""
    values = torch.zeros(rollouts.ids.shape)
    for packed in _pack(rollouts.sequences(), shape, critic.score.weight.device):
        indices, positions = response_positions(rollouts, packed.spans)
        flat = _packed_values(critic, packed)
        values[indices] = torch.where(rollouts.mask[indices], flat[positions], 0.0)
    return values


def last_values(
    model: ValueModel, sequences: Sequence[Sequence[int]], shape: BatchShape
) -> Float[Tensor, " sequences"]:
    """The value at the last token of each sequence. On the CPU."""
    values = torch.zeros(len(sequences))
    for packed in _pack(sequences, shape, model.score.weight.device):
        flat = _packed_values(model, packed)
        for span in packed.spans:
            values[span.group] = flat[span.start + len(sequences[span.group]) - 1]
    return values


@dataclass(frozen=True)
class RewardModel:
    """A reward model whose scores of right answers have mean 0 and standard deviation 1."""

    model: ValueModel
    mean: float
    std: float

    @staticmethod
    def load(folder: Path, hardware: Hardware) -> "RewardModel":
        """Read the checkpoint of a reward model and the normalisation of its scores."""
        model = load_value_model(folder, hardware.device)
        prepare_model(model, hardware)
        normalisation = json.loads((folder / REWARD_FILE).read_text(encoding="utf-8"))
        return RewardModel(model, normalisation["mean"], normalisation["std"])

    def normalised(self, values: Tensor) -> Tensor:
        """The model's values on the common scale."""
        return (values - self.mean) / self.std

    def scores(self, sequences: Sequence[Sequence[int]], shape: BatchShape) -> Float[Tensor, " sequences"]:
        """The normalised score of each conversation's last response."""
        return self.normalised(last_values(self.model, sequences, shape))


def _pack(sequences: Sequence[Sequence[int]], shape: BatchShape, device: torch.device) -> list[PackedBatch]:
    groups = [[sequence] for sequence in sequences]
    return [packed.to(device) for packed in pack_all(groups, shape.rows, shape.time, shape.pad)]


def _packed_values(model: ValueModel, packed: PackedBatch) -> Float[Tensor, " positions"]:
    heartbeat()
    with torch.enable_grad():
        return model.values(packed.ids, packed.segments).detach().flatten().cpu()


def _count_as_heartbeat(_: int) -> None:
    heartbeat()


def _padded(rows: Sequence[Sequence[float]], time: int) -> Tensor:
    return torch.tensor([list(row) + [0] * (time - len(row)) for row in rows])
