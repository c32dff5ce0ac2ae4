"""An iteration of group responses -> the micro-batches of its steps.

in:  GroupIteration: responses in groups, their advantages, which tokens are in the loss
out: GroupBatch: a micro-batch, with each token's weight in the loss of its step
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.align.group_objectives import Aggregation, token_weights
from groundup.align.group_rollouts import GroupRollouts
from groundup.align.packing import PackedBatch
from groundup.align.rollout_batches import local_micro_batches
from groundup.align.rollouts import response_positions
from groundup.align.session import SessionSetup


@dataclass(frozen=True)
class GroupBatch:
    """A micro-batch. Per-token tensors are [responses, time]; positions and targets are flat over the mask."""

    packed: PackedBatch
    positions: Int[Tensor, " tokens"]
    targets: Int[Tensor, " tokens"]
    mask: Bool[Tensor, "responses time"]
    weights: Float[Tensor, "responses time"]
    """of each token in the step's loss"""
    old_log_probs: Float[Tensor, "responses time"]
    reference_log_probs: Float[Tensor, "responses time"]
    advantages: Float[Tensor, " responses"]
    total: float
    """tokens of the whole step, on all ranks; 0 without a loss"""
    metrics: dict[str, float]
    """the iteration's metrics, divided by the ranks, with each rank's first micro-batch: metrics are summed"""


@dataclass(frozen=True)
class GroupIteration:
    """An iteration's responses with what the losses need, fixed at its start."""

    groups: GroupRollouts
    advantages: Float[Tensor, " responses"]
    in_loss: Bool[Tensor, "responses time"]
    importance: Float[Tensor, "responses time"]
    kl: float
    metrics: dict[str, float]


def group_micro_batches(
    setup: SessionSetup,
    iteration: GroupIteration,
    responses: Sequence[int],
    aggregation: Aggregation,
    longest: int,
) -> list[GroupBatch]:
    """This rank's micro-batches of a step on `responses`. longest: most tokens of a response."""
    rows, rollouts = torch.tensor(list(responses)), iteration.groups.rollouts
    weights = torch.zeros_like(iteration.importance)
    weights[rows] = token_weights(iteration.in_loss[rows], aggregation, longest) * iteration.importance[rows]
    total = float(rollouts.mask[rows].sum())

    def build(part: Sequence[int], packed: PackedBatch) -> GroupBatch:
        return _batch(iteration, part, packed, weights, total)

    batches = local_micro_batches(setup, rollouts, responses, build, _without_loss)
    metrics = {name: value / setup.parallel.dp_size for name, value in iteration.metrics.items()}
    return [replace(batches[0], metrics=metrics), *batches[1:]]


def _batch(
    iteration: GroupIteration, responses: Sequence[int], packed: PackedBatch, weights: Tensor, total: float
) -> GroupBatch:
    chosen = iteration.groups.rollouts.select(responses)
    indices, positions = response_positions(chosen, packed.spans)
    mask, source = chosen.mask[indices], torch.tensor(list(responses))[indices]
    return GroupBatch(
        packed=packed,
        positions=positions[mask],
        targets=chosen.ids[indices][mask],
        mask=mask,
        weights=weights[source],
        old_log_probs=iteration.groups.log_probs[source],
        reference_log_probs=iteration.groups.reference_log_probs[source],
        advantages=iteration.advantages[source],
        total=total,
        metrics={},
    )


def _without_loss(batch: GroupBatch) -> GroupBatch:
    return replace(batch, weights=torch.zeros_like(batch.weights), total=0.0)
