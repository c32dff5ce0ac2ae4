"""Tasks: what a model is taught to answer, rewarded for, and measured on.

in:  documents
out: Examples: a question, its true answer, and what the answer must hold

One interface serves fine-tuning data, prompts for reinforcement learning and evaluation. One file per task.
"""

from dataclasses import dataclass
from typing import Protocol

from groundup.core.records import Conversation, Document, Message


@dataclass(frozen=True, slots=True)
class Example:
    """One question with its true answer.

    group: id of the document it comes from, which decides the split. subject: what it is about, e.g.
    "textwrap.dedent". names: words that a right answer must hold.
    """

    id: str
    task: str
    kind: str
    group: str
    subject: str
    question: str
    answer: str
    names: tuple[str, ...] = ()

    def conversation(self) -> Conversation:
        """Question and true answer as a conversation."""
        turns = (Message("user", self.question), Message("assistant", self.answer))
        return Conversation(self.id, turns, self.kind, self.group)


class Task(Protocol):
    """A source of examples, and the judge of answers to them."""

    def examples(self, document: Document) -> list[Example]:
        """The examples a document gives; none where it isn't of the task's kind or can't be read."""
        ...

    def grade(self, example: Example, answer: str) -> dict[str, float]:
        """Figures by name, e.g. chrf (0 to 100), names and exact (0 to 1)."""
        ...
