"""Questions -> sampled answers, and what models make of them.

in:  prompts, an engine; later policies, critics and reward models
out: answers as padded tensors [answers, time]; log-probabilities, values and scores of the same shape

All forward passes here go the way that training goes: packed rows of the training's shape, and gradients on
(though unused), because only that way runs the training's own kernels. So the old log-probabilities of PPO are
exactly what the loss computes before its first update.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.align.data import PackedBatch, PackedSpan, pack_all
from groundup.infer.engine import Engine
from groundup.model.checkpoint import load_value_model
from groundup.model.decoder import Decoder
from groundup.model.losses import token_log_probs
from groundup.model.value_head import ValueModel
from groundup.parallel.hardware import Hardware, prepare_model

REWARD_FILE = "reward.json"
"""Beside a reward model's weights: mean and standard deviation of its scores of held-out right answers."""


@dataclass(frozen=True)
class Shape:
    """The fixed shape of every forward pass, and the id that pads it."""

    rows: int
    time: int
    pad: int


@dataclass(frozen=True)
class Rollouts:
    """Answers to prompts. Time counts an answer's tokens; the mask is true on them."""

    prompts: list[list[int]]
    answers: list[list[int]]
    ended: Bool[Tensor, " answers"]
    """whether the answer ended itself, with the id that ends a turn"""
    ids: Int[Tensor, "answers time"]
    mask: Bool[Tensor, "answers time"]
    log_probs: Float[Tensor, "answers time"]
    """as the engine sampled them"""

    def sequences(self) -> list[list[int]]:
        """Prompt and answer."""
        return [prompt + answer for prompt, answer in zip(self.prompts, self.answers, strict=True)]

    def pick(self, which: Sequence[int]) -> "Rollouts":
        """Some of the answers, in the order asked for."""
        rows = torch.tensor(list(which))
        return Rollouts(
            [self.prompts[i] for i in which],
            [self.answers[i] for i in which],
            self.ended[rows],
            self.ids[rows],
            self.mask[rows],
            self.log_probs[rows],
        )


def sample(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    seed: int,
    end: int,
    on_done: Callable[[int], None] | None = None,
) -> Rollouts:
    """One answer per prompt. `end` is the id with which an answer should end."""
    done = engine.generate(prompts, max_new_tokens, temperature, seed=seed, on_done=on_done)
    answers = [completion.ids for completion in done]
    return Rollouts(
        prompts=[list(prompt) for prompt in prompts],
        answers=answers,
        ended=torch.tensor([answer[-1] == end for answer in answers]),
        ids=_padded(answers, max_new_tokens).long(),
        mask=_padded([[1.0] * len(answer) for answer in answers], max_new_tokens) > 0,
        log_probs=_padded([completion.log_probs for completion in done], max_new_tokens),
    )


def states(
    rollouts: Rollouts, places: Sequence[PackedSpan]
) -> tuple[Int[Tensor, " packed"], Int[Tensor, "packed time"]]:
    """Which answers lie in a micro-batch, and the flat position from which each of their tokens was chosen.

    That is the position before the token. Beyond an answer's end positions mean nothing; the mask tells.
    """
    which = torch.tensor([place.group for place in places])
    firsts = torch.tensor([place.start + len(rollouts.prompts[place.group]) - 1 for place in places])
    positions = firsts[:, None] + torch.arange(rollouts.ids.shape[1])[None]
    return which, positions * rollouts.mask[which]


def answer_log_probs(
    policy: Decoder, rollouts: Rollouts, shape: Shape, temperature: float
) -> Float[Tensor, "answers time"]:
    """log p of every token of every answer, as `policy` sees it; 0 beyond an answer's end. On the CPU."""
    found = torch.zeros(rollouts.ids.shape)
    for packed in _packed(rollouts.sequences(), shape, policy.head_weight.device):
        which, positions = states(rollouts, packed.places)
        mask = rollouts.mask[which]
        hidden = _training_pass(policy.hidden, packed).flatten(0, 1)[positions[mask].to(packed.ids.device)]
        targets = rollouts.ids[which][mask].to(packed.ids.device)
        with torch.no_grad():
            log_probs = token_log_probs(
                hidden[None], policy.head_weight, targets[None], temperature, policy.config.logit_softcap
            )[0]
        found[which] = torch.zeros(mask.shape).masked_scatter(mask, log_probs.cpu())
    return found


def answer_values(critic: ValueModel, rollouts: Rollouts, shape: Shape) -> Float[Tensor, "answers time"]:
    """The critic's value before every token of every answer; 0 beyond an answer's end. On the CPU."""
    found = torch.zeros(rollouts.ids.shape)
    for packed in _packed(rollouts.sequences(), shape, critic.score.weight.device):
        which, positions = states(rollouts, packed.places)
        values = _training_pass(critic.values, packed).flatten().cpu()
        found[which] = torch.where(rollouts.mask[which], values[positions], 0.0)
    return found


def last_values(
    model: ValueModel, sequences: Sequence[Sequence[int]], shape: Shape
) -> Float[Tensor, " sequences"]:
    """The value at the last token of each sequence. On the CPU."""
    found = torch.zeros(len(sequences))
    for packed in _packed(sequences, shape, model.score.weight.device):
        values = _training_pass(model.values, packed).flatten().cpu()
        for place in packed.places:
            found[place.group] = values[place.start + len(sequences[place.group]) - 1]
    return found


@dataclass(frozen=True)
class RewardModel:
    """A reward model whose scores of right answers have mean 0 and standard deviation 1."""

    model: ValueModel
    mean: float
    std: float

    @staticmethod
    def load(folder: Path, hardware: Hardware) -> "RewardModel":
        """Read what the method `reward` saved."""
        model = load_value_model(folder, hardware.device)
        prepare_model(model, hardware)
        said = json.loads((folder / REWARD_FILE).read_text(encoding="utf-8"))
        return RewardModel(model, said["mean"], said["std"])

    def normalised(self, values: Tensor) -> Tensor:
        """The model's own numbers on the common scale."""
        return (values - self.mean) / self.std

    def scores(self, sequences: Sequence[Sequence[int]], shape: Shape) -> Float[Tensor, " sequences"]:
        """How good each conversation's last answer is."""
        return self.normalised(last_values(self.model, sequences, shape))


def _packed(sequences: Sequence[Sequence[int]], shape: Shape, device: torch.device) -> list[PackedBatch]:
    groups = [[sequence] for sequence in sequences]
    return [one.to(device) for one in pack_all(groups, shape.rows, shape.time, shape.pad)]


def _training_pass(forward: Callable[[Tensor, Tensor], Tensor], packed: PackedBatch) -> Tensor:
    """The result of a forward pass through the kernels that training uses, without its graph."""
    with torch.enable_grad():
        return forward(packed.ids, packed.segments).detach()


def _padded(rows: Sequence[Sequence[float]], time: int) -> Tensor:
    return torch.tensor([list(row) + [0] * (time - len(row)) for row in rows])
