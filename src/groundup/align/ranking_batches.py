"""Rankings as ids, packed into micro-batches; and the loss of a reward model on one.

in:  rankings: a prompt, two or more responses, their ranks
out: micro-batches in which all responses of a ranking are together, so that all its pairs are in one step
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.align.packing import PackedBatch, pack_all
from groundup.align.ranking_objectives import centring, plackett_luce, soft_bradley_terry
from groundup.align.rollouts import BatchShape
from groundup.core.records import Message, Ranking
from groundup.tokens.chat import render
from groundup.tokens.packing import OpenRows
from groundup.tokens.tokenizer import Tokenizer

RankingLoss = Literal["bradley_terry", "plackett_luce"]


@dataclass(frozen=True)
class RenderedRanking:
    """A ranking as ids: each response with its prompt. group: its prompt. kind: its source or its fault."""

    kind: str
    group: str
    ids: tuple[list[int], ...]
    ranks: tuple[int, ...]
    margin: float = 0.0
    lengths: tuple[int, ...] = ()
    """tokens of each response without the prompt"""

    @property
    def best_ids(self) -> tuple[int, ...]:
        """The best-ranked response with its prompt, the first of equal ones."""
        return tuple(self.ids[self.ranks.index(min(self.ranks))])

    @property
    def pairs(self) -> list[tuple[int, int, float]]:
        """(better, worse, target) of all pairs: target 1 for a preference, 1/2 for a tie."""
        ranks = self.ranks
        better = [(i, j, 1.0) for i in range(len(ranks)) for j in range(len(ranks)) if ranks[i] < ranks[j]]
        ties = [
            (i, j, 0.5) for i in range(len(ranks)) for j in range(i + 1, len(ranks)) if ranks[i] == ranks[j]
        ]
        return better + ties


@dataclass(frozen=True)
class RankingBatch:
    """A micro-batch of rankings. Pairs index the responses; `total`: rankings in the whole step, on all ranks."""

    packed: PackedBatch
    last_positions: Int[Tensor, " responses"]
    """flat position of each response's last token"""
    better: Int[Tensor, " pairs"]
    worse: Int[Tensor, " pairs"]
    target: Float[Tensor, " pairs"]
    margin: Float[Tensor, " pairs"]
    weight: Float[Tensor, " pairs"]
    """1 / number of pairs of the ranking"""
    ranks: tuple[tuple[int, ...], ...]
    """of each ranking's responses, in their order"""
    total: float = 1.0

    def to(self, device: torch.device) -> "RankingBatch":
        """The same on `device`."""
        tensors = ("last_positions", "better", "worse", "target", "margin", "weight")
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in tensors}
        return replace(self, packed=self.packed.to(device), **moved)


def rendered(kind: str, ranking: Ranking, tokenizer: Tokenizer, margin: float = 0.0) -> RenderedRanking:
    """A ranking as ids."""
    prompt_tokens = len(render(ranking.prompt, tokenizer).ids)
    ids = tuple(render([*ranking.prompt, *response], tokenizer).ids for response in ranking.responses)
    lengths = tuple(len(sequence) - prompt_tokens for sequence in ids)
    return RenderedRanking(kind, ranking.group, ids, ranking.ranks, margin, lengths)


def two_responses(prompt: tuple[Message, ...], better: str, worse: str, group: str) -> Ranking:
    """A ranking of a better and a worse response."""
    responses = ((Message("assistant", better),), (Message("assistant", worse),))
    return Ranking(id="", group=group, prompt=prompt, responses=responses, ranks=(1, 2))


def fitting(rankings: Iterable[RenderedRanking], shape: BatchShape) -> list[RenderedRanking]:
    """The rankings whose responses fit together into a micro-batch."""
    return [
        ranking
        for ranking in rankings
        if max(map(len, ranking.ids)) <= shape.time
        and OpenRows(shape.time, shape.rows).place_all(list(map(len, ranking.ids))) is not None
    ]


def ranking_batches(
    rankings: Sequence[RenderedRanking], shape: BatchShape, margin: float
) -> list[RankingBatch]:
    """Micro-batches of all rankings, in order. margin: added to each ranking's own."""
    groups = [ranking.ids for ranking in rankings]
    return [
        _batch(packed, rankings, margin) for packed in pack_all(groups, shape.rows, shape.time, shape.pad)
    ]


def ranking_loss(
    scores: Float[Tensor, " responses"],
    batch: RankingBatch,
    loss: RankingLoss,
    smoothing: float,
    center_coef: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """(loss, accuracy) of a micro-batch, each a part of the step's mean over rankings.

    smoothing: probability that a preference is wrong. center_coef: coefficient of the squared sum of a pair's scores.
    """
    better, worse = scores[batch.better], scores[batch.worse]
    if loss == "plackett_luce":
        parts = torch.split(scores, [len(ranks) for ranks in batch.ranks])
        total = torch.stack(
            [
                plackett_luce(part, torch.tensor(ranks, device=scores.device))
                for part, ranks in zip(parts, batch.ranks, strict=True)
            ]
        ).sum()
    else:
        target = torch.where(batch.target == 1, 1 - smoothing, batch.target)
        margin = torch.where(batch.target == 1, batch.margin, 0.0)
        total = (batch.weight * soft_bradley_terry(better, worse, target, margin)).sum()
    if center_coef:
        total = total + center_coef * (batch.weight * centring(better, worse)).sum()
    right = torch.where(batch.target == 1, (better > worse).float(), 0.5)
    return total / batch.total, (batch.weight * right).sum() / batch.total


def _batch(packed: PackedBatch, rankings: Sequence[RenderedRanking], margin: float) -> RankingBatch:
    last = [span.start + len(rankings[span.group].ids[span.member]) - 1 for span in packed.spans]
    better, worse, target, margins, weight, ranks = [], [], [], [], [], []
    first = 0
    for group in dict.fromkeys(span.group for span in packed.spans):
        ranking = rankings[group]
        pairs = ranking.pairs
        better += [first + i for i, _, _ in pairs]
        worse += [first + j for _, j, _ in pairs]
        target += [wanted for _, _, wanted in pairs]
        margins += [margin + ranking.margin] * len(pairs)
        weight += [1 / len(pairs)] * len(pairs)
        ranks.append(ranking.ranks)
        first += len(ranking.ids)
    return RankingBatch(
        packed,
        torch.tensor(last),
        torch.tensor(better),
        torch.tensor(worse),
        torch.tensor(target),
        torch.tensor(margins),
        torch.tensor(weight),
        tuple(ranks),
    )
