"""Alignment data -> pairs of a chosen and a rejected response, and responses with a label.

in:  rankings; labelled responses; or conversations, whose last answer is paired with one that has a known fault
out: ResponsePair: a prompt with two responses; LabelledResponse

Rankings come first. Without any, pairs are made of the conversations (see `align/pairs.py`), so that every corpus has
some.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.align.packing import permutation
from groundup.align.pairs import MADE, made_pairs
from groundup.core.records import Conversation, LabelledResponse, Message, Ranking, Split
from groundup.evaluate.alignment_data import AlignmentData


@dataclass(frozen=True)
class ResponsePair:
    """A prompt, its chosen and its rejected response."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]


def response_pairs(data: AlignmentData, split: Split, made: int, seed: int) -> list[ResponsePair]:
    """The pairs of a split. made: pairs of each kind of fault, where the data has no rankings."""
    if data.rankings("train") or data.rankings("held_out"):
        return ranked_pairs(data.rankings(split))
    return faulty_pairs(data.conversations(split), made, seed)


def ranked_pairs(rankings: Sequence[Ranking]) -> list[ResponsePair]:
    """All pairs of responses of which one is better; ties are left out."""
    return [
        ResponsePair(ranking.prompt, ranking.responses[better], ranking.responses[worse])
        for ranking in rankings
        for better, worse in ranking.pairs()
    ]


def faulty_pairs(conversations: Sequence[Conversation], count: int, seed: int) -> list[ResponsePair]:
    """At most `count` pairs for each kind of fault."""
    pairs = []
    for kind in MADE:
        order = permutation(len(conversations), seed, "pairs", kind)
        for pair in made_pairs([conversations[i] for i in order], kind, count, seed):
            *prompt, answer = pair.conversation.messages
            rejected = Message("assistant", pair.rejected)
            pairs.append(ResponsePair(tuple(prompt), (answer,), (rejected,)))
    return pairs


def labelled_responses(data: AlignmentData, split: Split, made: int, seed: int) -> list[LabelledResponse]:
    """The labelled responses of a split; without any, both responses of its pairs."""
    if data.labelled("train") or data.labelled("held_out"):
        return data.labelled(split)
    return [
        LabelledResponse(id="", prompt=pair.prompt, response=response, good=good)
        for pair in response_pairs(data, split, made, seed)
        for response, good in ((pair.chosen, True), (pair.rejected, False))
    ]
