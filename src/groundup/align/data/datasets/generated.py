"""Dataset `generated`: questions and answers made from the documents by the blueprint's tasks.

in:  the documents of the corpus
out: for each example a conversation and a prompt with its reference answer; its group is the document, so that a
     document's questions are all on one side of the split
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from groundup.align.data.dataset import Dataset, OnReject
from groundup.core.records import Conversation, Message, Prompt, Record
from groundup.core.registry import Plugin
from groundup.evaluate.alignment_data import RecordKind
from groundup.evaluate.examples import collect
from groundup.evaluate.tasks import Example, Task


class Generated(Dataset):
    """Questions and answers made from documents by tasks."""

    provides: ClassVar[frozenset[RecordKind]] = frozenset({"conversations", "prompts"})
    made: ClassVar[bool] = True

    tasks: tuple[Annotated[Task, Plugin("groundup.evaluate.tasks")], ...] = Field(
        default=(), description="what makes the questions; empty = the blueprint's [[tasks]]"
    )

    def records(self, documents: Path | None, on_reject: OnReject) -> Iterator[Record]:
        """See `Dataset`."""
        assert documents is not None, "generated questions need documents"
        for example in collect(self.tasks, documents):
            yield from to_records(example, self.label())


def to_records(example: Example, source: str) -> tuple[Conversation, Prompt]:
    """An example as a conversation and as a prompt."""
    question = Message("user", example.question)
    conversation = Conversation(
        id=example.id,
        kind=example.kind,
        group=example.group,
        source=source,
        subject=example.subject,
        messages=(question, Message("assistant", example.answer)),
    )
    prompt = Prompt(
        id=example.id,
        kind=example.kind,
        group=example.group,
        source=source,
        subject=example.subject,
        messages=(question,),
        answer=example.answer,
        metadata={"names": list(example.names), "task": example.task},
    )
    return conversation, prompt
