"""Records shared by all stages: documents, messages, and what alignment learns from.

A conversation is learned as it is; a ranking says which of several responses to a prompt is better; a labelled response
is good or bad; a prompt has no response, but perhaps a reference answer and the name of a verifier.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
Split = Literal["train", "held_out"]


@dataclass(frozen=True, slots=True)
class Document:
    """One text. `id` is a stable hash of source and position, never of an absolute path."""

    id: str
    text: str
    source: str
    path: str
    language: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    in_loss: bool = True
    """whether fine-tuning computes a loss on it; only assistant messages can be in the loss"""
    name: str = ""
    """of the tool whose result this is"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The fields that all records of alignment have.

    kind: the sort of question. group: what decides the split: a document's id, or a hash of the first user message.
    source: name of the `[[data]]` table. subject: what the question is about; answers about one subject may all be
    right.
    """

    id: str
    kind: str = ""
    group: str = ""
    source: str = ""
    subject: str = ""
    split: Split = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation(Record):
    """Messages in order; the last one is the assistant's."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking(Record):
    """Two or more responses to one prompt with their ranks: 1 is the best, equal ranks are ties.

    margin: by how much the better of two responses is better, on the file's own scale. scores: one for each response,
    higher is better. annotator: who ranked them.
    """

    prompt: tuple[Message, ...]
    responses: tuple[tuple[Message, ...], ...]
    ranks: tuple[int, ...]
    margin: float | None = None
    scores: tuple[float, ...] | None = None
    annotator: str = ""

    def pairs(self) -> list[tuple[int, int]]:
        """(better, worse) indices of all pairs of responses that are not tied."""
        ranks = self.ranks
        return [(i, j) for i in range(len(ranks)) for j in range(len(ranks)) if ranks[i] < ranks[j]]

    def ties(self) -> list[tuple[int, int]]:
        """Indices of all pairs of responses with the same rank."""
        ranks = self.ranks
        return [(i, j) for i in range(len(ranks)) for j in range(i + 1, len(ranks)) if ranks[i] == ranks[j]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledResponse(Record):
    """A response to a prompt that is good or bad."""

    prompt: tuple[Message, ...]
    response: tuple[Message, ...]
    good: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt(Record):
    """Messages that the assistant is to answer.

    answer: a reference answer, None where there is none. verifier: name of the verifier that the file asks for.
    metadata: the file's other columns, for verifiers and tasks.
    """

    messages: tuple[Message, ...]
    answer: str | None = None
    verifier: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
