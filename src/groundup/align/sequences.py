"""Sequences with scored tokens, packed, and the sum of their log-probabilities under a policy.

in:  sequences of ids, each with a mask of the tokens that are scored: an answer's, and never its prompt's
out: SequenceBatch: a micro-batch; for each sequence the sum of the scored tokens' log-probabilities

A prompt is rendered once, with the beginning-of-text token once, and the answer after it. Tokens of the answer are
those after the prompt's length, so the two can't be tokenized differently, and the end-of-turn token is scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.align.packing import PackedBatch
from groundup.align.rollouts import packed_log_probs
from groundup.core.records import Message
from groundup.model.decoder import Decoder
from groundup.tokens.chat import render
from groundup.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class ScoredSequence:
    """Ids of a conversation, and which of them are scored."""

    ids: list[int]
    scored: list[bool]

    @property
    def tokens(self) -> int:
        """Number of scored tokens."""
        return sum(self.scored[1:])


@dataclass(frozen=True)
class SequenceBatch:
    """A micro-batch of sequences, in the order of their groups and members."""

    packed: PackedBatch
    positions: Int[Tensor, " tokens"]
    """flat positions that predict the scored tokens"""
    targets: Int[Tensor, " tokens"]
    owners: Int[Tensor, " tokens"]
    """the sequence that each scored token belongs to"""
    tokens: Float[Tensor, " sequences"]
    """number of scored tokens"""
    groups: tuple[int, ...]
    """the group of each sequence, by its index among the packed groups"""

    def to(self, device: torch.device) -> "SequenceBatch":
        """The same on `device`."""
        return replace(
            self,
            packed=self.packed.to(device),
            positions=self.positions.to(device),
            targets=self.targets.to(device),
            owners=self.owners.to(device),
            tokens=self.tokens.to(device),
        )


def response_sequence(
    prompt: Sequence[Message], response: Sequence[Message], tokenizer: Tokenizer
) -> ScoredSequence:
    """A prompt and a response, of whose messages the assistant's are scored."""
    begin = len(render(prompt, tokenizer).ids)
    whole = render([*prompt, *response], tokenizer)
    scored = [at >= begin and in_loss for at, in_loss in enumerate(whole.loss_mask)]
    return ScoredSequence(whole.ids, scored)


def sequence_batch(packed: PackedBatch, groups: Sequence[Sequence[ScoredSequence]]) -> SequenceBatch:
    """The micro-batch with the scored tokens of its sequences; `groups` are those that were packed."""
    positions, targets, owners, tokens = [], [], [], []
    spans = sorted(packed.spans, key=lambda span: (span.group, span.member))
    for owner, span in enumerate(spans):
        sequence = groups[span.group][span.member]
        # Position t predicts token t + 1, so the first token of a sequence is never scored.
        places = [at for at in range(1, len(sequence.ids)) if sequence.scored[at]]
        positions += [span.start + at - 1 for at in places]
        targets += [sequence.ids[at] for at in places]
        owners += [owner] * len(places)
        tokens.append(float(len(places)))
    return SequenceBatch(
        packed,
        torch.tensor(positions, dtype=torch.long),
        torch.tensor(targets, dtype=torch.long),
        torch.tensor(owners, dtype=torch.long),
        torch.tensor(tokens),
        tuple(span.group for span in spans),
    )


def sequence_log_probs(policy: Decoder, batch: SequenceBatch) -> Float[Tensor, " sequences"]:
    """log p of each sequence's scored tokens under `policy`, summed."""
    log_probs = packed_log_probs(policy, batch.packed, batch.positions, batch.targets, temperature=1.0)
    sums = torch.zeros_like(batch.tokens, dtype=log_probs.dtype)
    return sums.index_add(0, batch.owners, log_probs)
