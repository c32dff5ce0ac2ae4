"""Checks of what reaches a model: chat masks, targets and weights of rows, packing, the order of rows.

in:  a bench
out: differences; all of it is whole numbers, so nothing may differ at all
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch

from groundup.align import data
from groundup.core.records import Message
from groundup.doctor.check import Check, CheckContext, Difference, equal
from groundup.doctor.toy_models import TALK, tokenizer
from groundup.tokens import chat, loader, packing
from groundup.tokens.tokenizer import Tokenizer
from groundup.train import batches

LENGTHS = (5, 17, 3, 16, 1, 40, 8, 8, 30, 2)


def plain_chat(messages: Sequence[Message], words: Tokenizer) -> tuple[list[int], list[bool]]:
    """Ids of a conversation and which of them are learnt, written token by token."""
    found = [(words.bos, False)]
    for message in messages:
        answer = message.role == "assistant"
        role = {"system": words.system, "user": words.user, "assistant": words.assistant}[message.role]
        found.append((role, False))
        for token in words.encode(message.content):
            found.append((token, answer))
        found.append((words.end_of_turn, answer))
    return [token for token, _ in found], [learnt for _, learnt in found]


def _check_chat(bench: CheckContext) -> Iterator[Difference]:
    """The assistant's words and the end of its turns are learnt; what others say, and every role, is only read."""
    words = tokenizer()
    for first, second in pairwise(TALK):
        for opening in ((), (Message("system", "Answer in one sentence."),)):
            said = [
                *opening,
                Message("user", first[0]), Message("assistant", first[1]),
                Message("user", second[0]), Message("assistant", second[1]),
            ]  # fmt: skip
            ids, learn = plain_chat(said, words)
            found = chat.render(said, words)
            yield equal("render: ids", found.ids, ids)
            yield equal("render: what is learnt", found.loss_mask, learn)
            asked = plain_chat(said[:-1], words)[0] + [words.assistant]
            yield equal("prompt", chat.prompt(said[:-1], words), asked)
            controls = [token for token in ids if words.is_special(token)]
            yield equal("control tokens in a conversation", len(controls), 1 + 2 * len(said))


def _check_rows(bench: CheckContext) -> Iterator[Difference]:
    """Two documents, one cut off by the row's end, and padding."""
    words = tokenizer()
    bos, eos, pad = words.bos, words.eos, words.pad
    rows = np.array([[bos, 5, 6, eos, bos, 7, 8, 9], [3, 4, eos, bos, 2, eos, pad, pad]], dtype=np.int64)
    batch = batches.token_batch(rows, words, bench.device)
    want = {
        "ids": [[bos, 5, 6, eos, bos, 7, 8], [3, 4, eos, bos, 2, eos, pad]],
        "targets": [[5, 6, eos, bos, 7, 8, 9], [4, eos, bos, 2, eos, pad, pad]],
        "segments": [[1, 1, 1, 1, 2, 2, 2], [0, 0, 0, 1, 1, 1, -1]],
        "weights": [[1, 1, 1, 0, 1, 1, 1], [1, 1, 0, 1, 1, 0, 0]],
    }
    for name, wanted in want.items():
        yield equal(f"token_batch: {name}", getattr(batch, name).tolist(), wanted)


def _check_packing(bench: CheckContext) -> Iterator[Difference]:
    """Every token is in exactly one place; sequences don't overlap and groups stay together."""
    rows, time, pad = 2, 40, -7
    counted = iter(range(10_000))
    groups = [
        [[next(counted) for _ in range(n)] for n in pair]
        for pair in zip(LENGTHS[::2], LENGTHS[1::2], strict=True)
    ]
    seen = []
    for packed in data.pack_all(groups, rows, time, pad):
        flat, segments = packed.ids.flatten().tolist(), packed.segments.flatten()
        for place in packed.places:
            sequence = groups[place.group][place.member]
            span = slice(place.start, place.start + len(sequence))
            yield equal("pack_all: a sequence", flat[span], sequence)
            yield equal("pack_all: stays in its row", place.start % time + len(sequence) <= time, True)
            others = torch.cat((segments[: span.start], segments[span.stop :]))
            alone = bool((segments[span] == segments[span.start]).all()) and bool(
                (others != segments[span.start]).all()
            )
            yield equal("pack_all: a segment of its own", alone, True)
            seen.append((place.group, place.member))
        padding = int((segments < 0).sum())
        held = sum(len(groups[place.group][place.member]) for place in packed.places)
        yield equal("pack_all: padding", (padding, flat.count(pad)), (rows * time - held,) * 2)
        whole = {place.group for place in packed.places}
        yield equal("pack_all: groups stay together", len(packed.places), 2 * len(whole))
    yield equal(
        "pack_all: every sequence once", seen and sorted(seen), [(g, m) for g in range(5) for m in (0, 1)]
    )
    capacity, taken = 16, set[tuple[int, int]]()
    for piece in packing.pack(LENGTHS, capacity):
        fits = piece.offset + piece.length <= capacity
        places = {(piece.row, piece.offset + i) for i in range(piece.length)}
        yield equal("pack: pieces don't overlap", fits and not places & taken, True)
        taken |= places
    yield equal("pack: no token lost", len(taken), sum(LENGTHS))


def _check_order(bench: CheckContext) -> Iterator[Difference]:
    """Every row once in an epoch, in an order that the seed alone decides."""
    rows, per_step = 24, 5
    order = np.concatenate([loader.sample_indices(rows, per_step, step, 3) for step in range(24)]).tolist()
    for epoch in range(5):
        part = order[epoch * rows : (epoch + 1) * rows]
        yield equal(f"row_indices: epoch {epoch}", sorted(part), list(range(rows)))
    yield equal("row_indices: epochs differ", order[:rows] != order[rows : 2 * rows], True)
    yield equal(
        "row_indices: asked again", loader.sample_indices(rows, per_step, 2, 3).tolist(), order[2 * 5 : 3 * 5]
    )
    chosen = [index for step in range(12) for index in data.chosen_at(step, 10, 5, 3, "order")]
    for epoch in range(6):
        part = chosen[epoch * 10 : (epoch + 1) * 10]
        yield equal(f"chosen_at: epoch {epoch}", sorted(part), list(range(10)))


CHECKS = [
    Check("data: chat masks", "fine-tuning learns what the user says, or not where to stop", _check_chat),
    Check("data: rows", "training predicts wrong targets, or padding", _check_rows),
    Check("data: packing", "tokens are lost, repeated, or mixed with others", _check_packing),
    Check("data: order", "rows are left out or read too often", _check_order),
]
