"""The rules without a model: what each answers, and that none reads the reference answer."""

from dataclasses import replace

import pytest

from groundup.core.records import Document
from groundup.evaluate.baselines import RULES, prepare_baselines, question_name, rename
from groundup.evaluate.grading import new_words_f1
from groundup.evaluate.tasks import Example
from groundup.evaluate.tasks.docstrings import Docstrings
from groundup.text.retrieval.corpus_passages import Passage, document_passages
from groundup.text.retrieval.retriever import Retriever


def source(names: dict[str, str]) -> str:
    return '"""A module of this test."""\n' + "\n".join(
        f'def {name}(text):\n    """{summary}"""\n' for name, summary in names.items()
    )


TAUGHT = source(
    {f"get_{n}": f"Return the {n} thing of this text." for n in ("first", "second", "third", "last")}
)
HELD_OUT = source({"get_middle": "Return the middle thing of this text, if any."})


def taught_examples() -> list[Example]:
    """Of many modules, so that no module's name belongs to the form of a question."""
    return [item for number in range(40) for item in examples(TAUGHT, f"taught_{number}.py")]


def examples(text: str, path: str) -> list[Example]:
    return Docstrings().examples(Document(path, text, "s", path))


def passages() -> list[Passage]:
    texts = ((TAUGHT, "taught.py"), (HELD_OUT, "held.py"))
    return [item for text, path in texts for item in document_passages(Document(path, text, "s", path), 400)]


def held_out(kind: str) -> Example:
    return next(item for item in examples(HELD_OUT, "held.py") if item.kind == kind)


def test_rules_answer_with_the_names_of_the_question() -> None:
    answers = prepare_baselines(taught_examples(), Retriever(passages())).answers(held_out("does"))
    assert tuple(answers) == RULES
    assert answers["question"] == held_out("does").question
    assert answers["template"].startswith("held.get_middle: Return the ")
    assert answers["nearest"].startswith("held.get_middle")
    assert answers["other"].startswith("taught_")
    assert answers["passage"] == "held.get_middle: Return the middle thing of this text, if any."


def test_a_question_that_hides_the_name_gives_only_the_module_away() -> None:
    which = held_out("which")
    answers = prepare_baselines(taught_examples(), Retriever(passages())).answers(which)
    assert "get_middle" not in answers["template"] + answers["nearest"] + answers["other"]
    assert answers["template"].startswith("held.get_")


def test_no_rule_reads_the_reference_answer() -> None:
    taught = taught_examples()
    baselines = prepare_baselines(taught, Retriever(passages()))
    for example in (*examples(HELD_OUT, "held.py"), *taught[:40]):
        other = replace(example, answer="something else", names=())
        assert baselines.answers(example) == baselines.answers(other)


def test_a_taught_question_is_not_looked_up() -> None:
    taught = taught_examples()
    baselines = prepare_baselines(taught, Retriever([]))
    for example in taught[:40]:
        if example.kind == "does":
            assert baselines.answers(example)["nearest"] != example.answer
            assert baselines.answers(example)["passage"] == ""


def test_names_are_replaced_whole() -> None:
    assert rename("a.get: see get and getter", "a.get", "b.set") == "b.set: see set and getter"
    assert rename("text", "", "x") == "text"
    question = Example("i", "which", "g", "m.f", 'Which function of m.sub does this: "x"', "m.f")
    assert question_name(question, frozenset({"Which", "function", "of"})) == "m.sub"


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [("f: copies a file", "f: copies a file", 1.0), ("f", "f: copies a file", 0.0), ("f", "f", 1.0),
     ("f: copies it", "f: copies a file", 2 / 5), ("f: x", "f", 0.0)],
)  # fmt: skip
def test_words_of_the_question_count_for_nothing(answer: str, reference: str, score: float) -> None:
    assert new_words_f1(answer, reference, "What does f do?") == pytest.approx(score)
