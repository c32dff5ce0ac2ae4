"""Dataset `preferences`: which of several responses people prefer, or whether one response is good.

in:  rows in one of the layouts below, recognised by their keys or named by `format`
out: rankings of two or more responses; labelled responses

- pairs: `chosen` and `rejected`, text or messages, with a prompt, or with whole conversations that begin with the same
  messages; perhaps `margin`, or `score_chosen` and `score_rejected`
- ranked: `responses` (or `answers`, `completions`) with `ranks` (the lowest is the best) or `scores`, also per response
- votes: `response_a` and `response_b` (or whole `conversation_a` and `conversation_b`) with a vote
- labelled: one response with a `label`
- oasst: a tree of messages; every message with two ranked replies of the assistant is a ranking

A vote of unstated meaning is refused until `votes` says what its values mean.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from groundup.align.data.chat_messages import RowError
from groundup.align.data.file_rows import FileDataset, RowContext
from groundup.align.data.preference_rows import (
    COMPLETIONS,
    LISTED,
    RESPONSE_PAIRS,
    VOTES,
    Responses,
    labelled,
    oasst,
    pairs,
    ranked,
    votes,
)
from groundup.align.data.rows_of_prompts import first_column
from groundup.core.records import LabelledResponse, Ranking, Record
from groundup.evaluate.alignment_data import RecordKind

LAYOUTS: dict[str, Callable[[Mapping[str, Any], RowContext, Mapping[str, str]], list[Responses]]] = {
    "pairs": pairs,
    "ranked": ranked,
    "votes": votes,
    "labelled": labelled,
    "oasst": oasst,
}


class Preferences(FileDataset):
    """Your own rankings of responses, votes between two, and responses with a label."""

    provides: ClassVar[frozenset[RecordKind]] = frozenset({"rankings", "labelled", "prompts"})

    votes: dict[str, Literal["a", "b", "tie"]] = Field(
        default={},
        description='which response each value of a vote prefers, e.g. { "1" = "a", "2" = "b", "0" = "tie" }',
    )
    ties: Literal["keep", "drop"] = Field(
        default="keep", description="rankings in which all responses are tied: kept, or dropped"
    )

    def row_records(self, row: Mapping[str, Any], context: RowContext) -> list[Record]:
        """See `FileDataset`."""
        if row.get("skipped"):
            raise RowError("skipped", "skipped by its annotator")
        layout = self.format or recognised(row)
        if layout not in LAYOUTS:
            raise RowError("unknown_format", f"format = {layout!r} is none of {', '.join(LAYOUTS)}")
        read = LAYOUTS[layout](row, context, self.votes)
        return [self._record(item, layout, number, context) for number, item in enumerate(read)]

    def _record(self, read: Responses, layout: str, number: int, context: RowContext) -> Record:
        name = context.place + (f".{number}" if number else "")
        if read.good is not None:
            return LabelledResponse(
                id=name,
                kind=layout,
                source=context.source,
                prompt=read.prompt,
                response=read.responses[0],
                good=read.good,
            )
        if len(set(read.responses)) == 1:
            raise RowError("equal_responses", "all responses are equal")
        if self.ties == "drop" and len(set(read.ranks)) == 1:
            raise RowError("tie", "all responses are tied")
        return Ranking(
            id=name,
            kind=layout,
            source=context.source,
            prompt=read.prompt,
            responses=read.responses,
            ranks=read.ranks,
            margin=read.margin,
            scores=read.scores,
            annotator=read.annotator,
        )


def recognised(row: Mapping[str, Any]) -> str:
    """The layout of a row by its keys. Raises RowError for none."""
    if {"chosen", "rejected", "chosen_response", "rejected_response"} & row.keys():
        return "pairs"
    listed = first_column(row, LISTED)
    if listed and isinstance(row[listed], list):
        return "ranked"
    if isinstance(row.get("prompt"), Mapping) and "replies" in row["prompt"]:
        return "oasst"
    if any(first in row and second in row for first, second in RESPONSE_PAIRS):
        return "votes"
    if first_column(row, ("label", "kto_tag")) or "label" in row:
        return "labelled"
    raise RowError(
        "unknown_format",
        f"no known layout of preferences; the columns are {', '.join(map(str, row))}. Name them with fields: chosen "
        f"and rejected; responses with ranks or scores; response_a, response_b and {VOTES[0]}; or "
        f"{COMPLETIONS[0]} and label",
    )
