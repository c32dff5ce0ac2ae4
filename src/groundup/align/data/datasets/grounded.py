"""Dataset `grounded`: the tasks' questions with passages of the corpus in the prompt.

in:  the documents of the corpus
out: for each subject a conversation: the passages that the search finds for its first question, then the subject's
     questions and answers; one of the questions is in free words, made of the description

Most of the passages are distractors. In a fraction of the conversations the right passage is left out, so that the
model does not learn that the answer is always there; in half of them the passages are in another order than that of
the search, so that the model has to look for the right one.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from groundup.align.data.dataset import Dataset, OnReject
from groundup.core.records import Conversation, Message
from groundup.core.registry import Plugin
from groundup.core.rng import derive_seed, hash_fraction
from groundup.evaluate.alignment_data import RecordKind
from groundup.evaluate.examples import collect
from groundup.evaluate.tasks import Example, Task
from groundup.text.documents import read_documents
from groundup.text.retrieval.corpus_passages import Passage, cut_passages
from groundup.text.retrieval.retriever import Retriever, with_passages

FREE_FORMS = ("How do I {words}?", "How can I {words}?", "I want to {words}.", "What can {words}?")
KEPT_WORDS = (0.5, 1.0)
"""Smallest and largest fraction of a description's words in a question in free words."""


class Grounded(Dataset):
    """Conversations about a subject with passages of the corpus in the system message."""

    provides: ClassVar[frozenset[RecordKind]] = frozenset({"conversations"})
    made: ClassVar[bool] = True

    tasks: tuple[Annotated[Task, Plugin("groundup.evaluate.tasks")], ...] = Field(
        default=(), description="what makes the questions; empty = the blueprint's [[tasks]]"
    )
    passages: int = Field(default=2, ge=1, description="passages in a prompt")
    questions: int = Field(default=4, ge=1, description="most questions of one conversation")
    absent: float = Field(
        default=0.1, ge=0, le=1, description="fraction of the conversations without the right passage"
    )

    def records(self, documents: Path | None, on_reject: OnReject) -> Iterator[Conversation]:
        """See `Dataset`."""
        assert documents is not None, "grounded questions need documents"
        retriever = Retriever(cut_passages(read_documents(documents)))
        subjects: dict[tuple[str, str], list[Example]] = {}
        for example in collect(self.tasks, documents):
            subjects.setdefault((example.group, example.subject), []).append(example)
        for examples in subjects.values():
            yield self._conversation(_with_free_words(examples)[: self.questions], retriever)

    def _conversation(self, examples: Sequence[Example], retriever: Retriever) -> Conversation:
        first = examples[0]
        turns = [
            message
            for example in examples
            for message in (Message("user", example.question), Message("assistant", example.answer))
        ]
        return Conversation(
            id=f"grounded:{first.id}",
            kind=first.kind,
            group=first.group,
            source=self.label(),
            subject=first.subject,
            messages=tuple(with_passages(turns, self._passages(first, retriever))),
        )

    def _passages(self, example: Example, retriever: Retriever) -> list[Passage]:
        """What is put into the prompt: usually what the search finds, best first."""
        matches = retriever.find([example.question], self.passages + 1)
        if hash_fraction(f"absent:{example.id}") < self.absent:
            matches = [passage for passage in matches if passage.name != example.subject]
        chosen = matches[: self.passages]
        if hash_fraction(f"order:{example.id}") < 0.5:
            chosen.sort(key=lambda passage: derive_seed(example.id, passage.id))
        return chosen


def _with_free_words(examples: Sequence[Example]) -> list[Example]:
    """A subject's examples in an order that its hash decides, one more in free words where its answer describes it."""
    questions = list(examples)
    for example in examples:
        _, separator, description = example.answer.partition(f"{example.subject}: ")
        if example.kind == "does" and separator:
            questions.append(_in_free_words(example, description))
    return sorted(questions, key=lambda example: derive_seed(example.id, "conversation"))


def _in_free_words(example: Example, description: str) -> Example:
    """A question that names nothing: some words of the description, in their order, in a form that people use."""
    words = description.split(". ", 1)[0].rstrip(".").split()
    low, high = KEPT_WORDS
    share = low + (high - low) * hash_fraction(f"share:{example.id}")
    kept = [
        word
        for number, word in enumerate(words)
        if not number or hash_fraction(f"word:{number}:{example.id}") < share
    ]
    text = " ".join(kept)
    form = FREE_FORMS[derive_seed(example.id, "form") % len(FREE_FORMS)]
    question = form.format(words=text[:1].lower() + text[1:])
    return Example(
        f"{example.id}:free", "free", example.group, example.subject, question, example.answer, example.names
    )
