"""Records shared by all stages: documents, messages and conversations."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


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


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in order. `group` (a document id) decides the split; `kind` is the kind of question."""

    id: str
    messages: tuple[Message, ...]
    kind: str = ""
    group: str = ""
