"""Grounded conversations: passages of the corpus in the prompt, distractors, and a right passage that is absent."""

from pathlib import Path

import pytest

from groundup.align.data.data import Data, data
from groundup.align.data.datasets.grounded import Grounded
from groundup.core.progress import Reporter
from groundup.core.records import Conversation, Document
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, StageContext
from groundup.evaluate.tasks.docstrings import Docstrings
from groundup.text.documents import DOCUMENTS, DocumentWriter
from groundup.text.retrieval.retriever import PASSAGES_FILE, read_passages

THINGS = ("apple", "bridge", "candle", "door", "engine", "forest", "garden", "harbor", "island", "jacket")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Twenty modules with two functions each."""
    with DocumentWriter(tmp_path / DOCUMENTS / "0.parquet") as writer:
        for number in range(20):
            thing = f"{THINGS[number % 10]}_{number}"
            source = f'"""Tools for the {thing} of people."""\n' + "".join(
                f'def {verb}_{thing}(value, limit):\n    """{verb.title()} the whole {thing} before the evening."""\n'
                for verb in ("open", "paint")
            )
            writer.write([Document(f"d{number:016x}", source, "s", f"{thing}.py")])
    return tmp_path


def conversations(corpus: Path, **settings: float) -> list[Conversation]:
    dataset = Grounded(tasks=(Docstrings(),), **settings)  # type: ignore[arg-type]
    return list(dataset.records(corpus, lambda entry: None))


def holds_the_right_passage(record: Conversation) -> bool:
    return f"\n\n{record.subject}: " in f"\n\n{record.messages[0].content}"


def test_a_conversation_is_about_one_subject_with_passages_before_it(corpus: Path) -> None:
    records = conversations(corpus, absent=0)
    assert len(records) == 60 and len({record.subject for record in records}) == 60
    for record in records:
        system, *turns = record.messages
        assert system.role == "system" and [turn.role for turn in turns[:2]] == ["user", "assistant"]
        assert len(turns) % 2 == 0 and len(turns) <= 8
        assert all(turn.content.startswith(record.subject) for turn in turns[1::2])
        assert system.content.count("\n\n") == 1
    assert sum(map(holds_the_right_passage, records)) >= 55


def test_the_right_passage_is_absent_from_a_fraction(corpus: Path) -> None:
    for absent, share in ((1.0, 0.0), (0.5, 0.5)):
        records = conversations(corpus, absent=absent)
        holding = sum(map(holds_the_right_passage, records))
        assert holding / len(records) == pytest.approx(share, abs=0.25)


def test_a_question_in_free_words_names_no_function(corpus: Path) -> None:
    records = conversations(corpus, questions=9)
    forms = ("How do I ", "How can I ", "I want to ", "What can ")
    free = [
        (record, turn.content)
        for record in records
        for turn in record.messages[1::2]
        if turn.content.startswith(forms)
    ]
    assert len(free) == 40
    assert all(record.subject not in question for record, question in free)


def test_the_same_corpus_gives_the_same_conversations(corpus: Path) -> None:
    assert conversations(corpus) == conversations(corpus)


def test_the_stage_writes_the_passages_that_chat_reads(corpus: Path, tmp_path: Path) -> None:
    documents = Artifact(corpus, "0" * 64, "curate", "corpus")
    context = StageContext(tmp_path / "data-0.part", Reporter(quiet=True))
    recipe = Data(datasets=(Grounded(tasks=(Docstrings(),), passages=3),))
    metrics = data(recipe, Runtime(), context, documents)
    assert metrics["passages"] == len(read_passages(context.path / PASSAGES_FILE)) == 60
    assert metrics["passages_per_prompt"] == 3
    assert metrics["conversations"] == 60
