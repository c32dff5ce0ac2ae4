"""Registry of tasks: what a model is taught to answer, rewarded for, and measured on. One file per task.

in:  documents
out: `Example`s: a question, its reference answer, and the names that an answer must contain

One interface serves fine-tuning data, prompts for reinforcement learning and evaluation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from groundup.core.records import Document, Message

REQUIRED_METRIC = "chrf"
"""The score that every task has to give: evaluation reports it by kind of question and beside a baseline."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question with its reference answer.

    kind: the sort of question. group: id of its document, which decides the split. subject: what it is about, e.g.
    "textwrap.dedent". names: words that a right answer contains. task: name of its task, set by `collect`.
    """

    id: str
    kind: str
    group: str
    subject: str
    question: str
    answer: str
    names: tuple[str, ...] = ()
    task: str = ""

    def prompt_messages(self) -> Sequence[Message]:
        """The question as messages."""
        return (Message("user", self.question),)


class Task(Protocol):
    """A source of examples that also grades answers to them."""

    @property
    def metrics(self) -> Sequence[str]:
        """Names of the scores that `grade` may return; `REQUIRED_METRIC` is among them."""
        ...

    def examples(self, document: Document) -> list[Example]:
        """The examples of a document; none where it has the wrong format or can't be parsed."""
        ...

    def grade(self, example: Example, answer: str) -> dict[str, float]:
        """Scores of an answer by metric, e.g. chrf (0 to 100), names and exact (0 to 1)."""
        ...
