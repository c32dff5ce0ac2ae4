"""Examples: what is asked about a text, and which documents are held out."""

import gzip
import json
from pathlib import Path

import pytest

from groundup.core.records import Document
from groundup.core.rng import hash_fraction
from groundup.evaluate.examples import collect, split
from groundup.evaluate.tasks import Example
from groundup.evaluate.tasks.docstrings import Docstrings
from groundup.evaluate.tasks.passages import Passages
from groundup.text.documents import DOCUMENTS, DocumentWriter

SOURCE = '''"""Text wrapping and filling."""

def dedent(text, *, tabs=8):
    """Remove any common leading whitespace from every line.

    Much more about it.
    """

def _private(): "not for the public, never asked about"

class Wrapper:
    """Wraps and fills single paragraphs of text."""

    def fill(self, text, width=70):
        """Reformat the text to fit in lines of at most this width."""

    def bare(self):
        pass
'''


def document(text: str, path: str = "pack/wrap.py") -> Document:
    return Document("d" * 16, text, "s", path)


def by_kind(examples: list[Example], subject: str) -> dict[str, Example]:
    return {example.kind: example for example in examples if example.subject == subject}


def test_docstrings_give_questions_about_names_people_use() -> None:
    found = Docstrings().examples(document(SOURCE))
    assert {example.subject for example in found} == {
        "pack.wrap", "pack.wrap.dedent", "pack.wrap.Wrapper", "pack.wrap.Wrapper.fill"}  # fmt: skip
    dedent = by_kind(found, "pack.wrap.dedent")
    assert dedent["does"].answer == "pack.wrap.dedent: Remove any common leading whitespace from every line."
    assert "pack.wrap.dedent" in dedent["does"].question
    assert dedent["parameters"].answer == "pack.wrap.dedent takes text and tabs."
    assert dedent["parameters"].names == ("text", "tabs")
    assert dedent["signature"].answer == "pack.wrap.dedent: def dedent(text, *, tabs=8)"
    assert "pack.wrap.dedent" not in dedent["which"].question and "dedent" in dedent["which"].answer
    fill = by_kind(found, "pack.wrap.Wrapper.fill")
    assert fill["parameters"].answer == "pack.wrap.Wrapper.fill takes text and width."


def test_a_package_is_called_by_its_folder() -> None:
    found = Docstrings().examples(document(SOURCE, "json/__init__.py"))
    assert by_kind(found, "json")["module"].answer == "json: Text wrapping and filling."


def test_long_docstrings_end_after_a_sentence() -> None:
    text = '"""' + "This sentence has exactly seven words here. " * 30 + '"""'
    answer = Docstrings(max_answer_chars=100).examples(document(text))[0].answer
    assert answer.endswith("here.") and len(answer) <= 100 + len("pack.wrap: ")


@pytest.mark.parametrize(
    "text",
    ['"""x""" def (', '"""' + "(" * 100_000, '"""nul"""\x00', '"""a b c"""\n' + "x = " + "-" * 50_000 + "1",
     '"""\\d is no escape, but is read"""', '"""' + "word " * 500_000 + '"""', ""],
)  # fmt: skip
def test_hostile_sources_are_survived(text: str) -> None:
    assert all(len(example.answer) < 400 for example in Docstrings().examples(document(text)))


def test_a_name_defined_twice_gives_one_example() -> None:
    twice = 'def f(a):\n    """Does this one thing."""\n' * 2 + "x = '''y'''"
    ids = [example.id for example in Docstrings().examples(document(twice))]
    assert len(ids) == len(set(ids)) > 0


def test_headings_definitions_and_passages_of_prose() -> None:
    text = (
        "# How the bridge works\n\nThe bridge opens when a ship is near. It closes a little later.\n\n"
        "Rivers\n------\n\nA river is a body of water that flows to the sea. It never flows uphill, as people say.\n"
    )
    found = Passages().examples(document(text, "page.md"))
    section = next(e for e in found if e.subject == "How the bridge works")
    assert section.kind == "section"
    assert section.answer == "The bridge opens when a ship is near. It closes a little later."
    assert any(e.subject == "Rivers" for e in found)
    definition = next(e for e in found if e.kind == "definition")
    assert definition.question.endswith("a river?") and definition.names == ("river",)
    assert Passages().examples(document(text, "page.py")) == []


def test_novels_give_hundreds_of_examples(shared_data: Path) -> None:
    path = shared_data / "pretrain" / "novels" / "novels-00000.jsonl.gz"
    if not path.exists():
        pytest.skip("needs the novels")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    found = [
        example
        for number, text in enumerate(texts[:100])
        for example in Passages().examples(Document(f"n{number}", text, "s", f"novels.jsonl.gz#{number}"))
    ]
    assert len(found) >= 300
    assert all(len(example.answer) <= 320 for example in found)


def test_a_right_answer_gets_full_marks_and_a_wrong_one_fewer() -> None:
    task = Docstrings()
    example = by_kind(task.examples(document(SOURCE)), "pack.wrap.dedent")["parameters"]
    assert task.grade(example, example.answer) == {"chrf": pytest.approx(100), "exact": 1.0, "names": 1.0}
    half = task.grade(example, "it takes text")
    assert half["names"] == 0.5 and half["exact"] == 0 and 0 < half["chrf"] < 100


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    with DocumentWriter(tmp_path / DOCUMENTS / "0.parquet") as writer:
        writer.write([Document(f"doc{n}", SOURCE, "s", f"m{n}.py") for n in range(60)])
    return tmp_path


def test_the_order_is_a_hash_and_the_limit_takes_its_beginning(corpus: Path) -> None:
    everything = collect([Docstrings()], corpus)
    assert len(everything) == 60 * len(Docstrings().examples(document(SOURCE)))
    assert collect([Docstrings()], corpus, limit=50) == everything[:50]
    assert len({example.group for example in everything[:50]}) > 20


def test_a_documents_examples_are_all_on_one_side(corpus: Path) -> None:
    examples = collect([Docstrings()], corpus)
    train, held_out = split(examples, 0.2)
    assert len(train) + len(held_out) == len(examples)
    assert {e.group for e in train}.isdisjoint(e.group for e in held_out)
    assert {e.group for e in held_out} == {f"doc{n}" for n in range(60) if hash_fraction(f"doc{n}") < 0.2}


def test_of_two_documents_one_is_held_out() -> None:
    examples = [example for n in range(2) for example in Docstrings().examples(
        Document(f"x{n}", SOURCE, "s", "m.py"))]  # fmt: skip
    train, held_out = split(examples, 0.0001)
    assert train and held_out
