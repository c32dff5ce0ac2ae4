"""Checks of the training data: loss masks, targets and weights of packed sequences, packing, sampling order.

in:  a `CheckContext`
out: differences; all values are integers and must be equal
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch

from groundup.align.packing import epoch_indices, pack_all
from groundup.core.records import Message
from groundup.doctor.check import Check, CheckContext, Difference, equal
from groundup.doctor.toy_models import CHATS, toy_tokenizer
from groundup.tokens import chat, loader, packing
from groundup.tokens.tokenizer import Tokenizer
from groundup.train import batches

LENGTHS = (5, 17, 3, 16, 1, 40, 8, 8, 30, 2)


def plain_chat(messages: Sequence[Message], tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """Ids and loss mask of a conversation, token by token."""
    tokens = [(tokenizer.bos, False)]
    for message in messages:
        answer = message.role == "assistant"
        role = {"system": tokenizer.system, "user": tokenizer.user, "assistant": tokenizer.assistant}[
            message.role
        ]
        tokens.append((role, False))
        for token in tokenizer.encode(message.content):
            tokens.append((token, answer))
        tokens.append((tokenizer.end_of_turn, answer))
    return [token for token, _ in tokens], [in_loss for _, in_loss in tokens]


def _check_chat(context: CheckContext) -> Iterator[Difference]:
    """The loss mask covers the assistant's content and end-of-turn tokens; role tokens and other messages don't."""
    tokenizer = toy_tokenizer()
    for first, second in pairwise(CHATS):
        for opening in ((), (Message("system", "Answer in one sentence."),)):
            messages = [
                *opening,
                Message("user", first[0]), Message("assistant", first[1]),
                Message("user", second[0]), Message("assistant", second[1]),
            ]  # fmt: skip
            ids, loss_mask = plain_chat(messages, tokenizer)
            rendered = chat.render(messages, tokenizer)
            yield equal("render: ids", rendered.ids, ids)
            yield equal("render: loss mask", rendered.loss_mask, loss_mask)
            prompt_ids = plain_chat(messages[:-1], tokenizer)[0] + [tokenizer.assistant]
            yield equal("generation prompt", chat.prompt(messages[:-1], tokenizer), prompt_ids)
            controls = [token for token in ids if tokenizer.is_special(token)]
            yield equal("control tokens in a conversation", len(controls), 1 + 2 * len(messages))


def _check_targets(context: CheckContext) -> Iterator[Difference]:
    """Two documents, one truncated by the end of the packed sequence, and padding."""
    tokenizer = toy_tokenizer()
    bos, eos, pad = tokenizer.bos, tokenizer.eos, tokenizer.pad
    rows = np.array([[bos, 5, 6, eos, bos, 7, 8, 9], [3, 4, eos, bos, 2, eos, pad, pad]], dtype=np.int64)
    batch = batches.token_batch(rows, tokenizer, context.device)
    want = {
        "ids": [[bos, 5, 6, eos, bos, 7, 8], [3, 4, eos, bos, 2, eos, pad]],
        "targets": [[5, 6, eos, bos, 7, 8, 9], [4, eos, bos, 2, eos, pad, pad]],
        "segments": [[1, 1, 1, 1, 2, 2, 2], [0, 0, 0, 1, 1, 1, -1]],
        "weights": [[1, 1, 1, 0, 1, 1, 1], [1, 1, 0, 1, 1, 0, 0]],
    }
    for name, wanted in want.items():
        yield equal(f"token_batch: {name}", getattr(batch, name).tolist(), wanted)


def _check_packing(context: CheckContext) -> Iterator[Difference]:
    """Every token is packed exactly once; sequences don't overlap and groups stay together."""
    rows, time, pad = 2, 40, -7
    counted = iter(range(10_000))
    groups = [
        [[next(counted) for _ in range(n)] for n in pair]
        for pair in zip(LENGTHS[::2], LENGTHS[1::2], strict=True)
    ]
    members = []
    for packed in pack_all(groups, rows, time, pad):
        flat, segments = packed.ids.flatten().tolist(), packed.segments.flatten()
        for place in packed.spans:
            sequence = groups[place.group][place.member]
            span = slice(place.start, place.start + len(sequence))
            yield equal("pack_all: a sequence", flat[span], sequence)
            yield equal(
                "pack_all: within one packed sequence", place.start % time + len(sequence) <= time, True
            )
            others = torch.cat((segments[: span.start], segments[span.stop :]))
            alone = bool((segments[span] == segments[span.start]).all()) and bool(
                (others != segments[span.start]).all()
            )
            yield equal("pack_all: own segment", alone, True)
            members.append((place.group, place.member))
        padding = int((segments < 0).sum())
        held = sum(len(groups[place.group][place.member]) for place in packed.spans)
        yield equal("pack_all: padding", (padding, flat.count(pad)), (rows * time - held,) * 2)
        whole = {place.group for place in packed.spans}
        yield equal("pack_all: groups stay together", len(packed.spans), 2 * len(whole))
    yield equal(
        "pack_all: every sequence once",
        members and sorted(members),
        [(g, m) for g in range(5) for m in (0, 1)],
    )
    capacity, taken = 16, set[tuple[int, int]]()
    for piece in packing.pack(LENGTHS, capacity):
        fits = piece.offset + piece.length <= capacity
        places = {(piece.row, piece.offset + i) for i in range(piece.length)}
        yield equal("pack: segments don't overlap", fits and not places & taken, True)
        taken |= places
    yield equal("pack: no token lost", len(taken), sum(LENGTHS))


def _check_order(context: CheckContext) -> Iterator[Difference]:
    """Each epoch has every index once, in an order determined by the seed."""
    rows, per_step = 24, 5
    order = np.concatenate([loader.sample_indices(rows, per_step, step, 3) for step in range(24)]).tolist()
    for epoch in range(5):
        part = order[epoch * rows : (epoch + 1) * rows]
        yield equal(f"sample_indices: epoch {epoch}", sorted(part), list(range(rows)))
    yield equal("sample_indices: epochs differ", order[:rows] != order[rows : 2 * rows], True)
    yield equal(
        "sample_indices: deterministic",
        loader.sample_indices(rows, per_step, 2, 3).tolist(),
        order[2 * 5 : 3 * 5],
    )
    chosen = [index for step in range(12) for index in epoch_indices(step, 10, 5, 3, "order")]
    for epoch in range(6):
        part = chosen[epoch * 10 : (epoch + 1) * 10]
        yield equal(f"chosen_at: epoch {epoch}", sorted(part), list(range(10)))


CHECKS = [
    Check(
        "data: loss masks",
        "fine-tuning trains on the user's messages, or not on the end of turns",
        _check_chat,
    ),
    Check("data: targets", "training predicts wrong targets, or padding", _check_targets),
    Check("data: packing", "tokens are lost, repeated, or in the wrong segment", _check_packing),
    Check("data: order", "packed sequences are skipped or repeated", _check_order),
]
