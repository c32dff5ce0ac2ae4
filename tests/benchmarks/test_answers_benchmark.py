"""The judge of answers to questions in free words."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from groundup.text.retrieval.corpus_passages import Passage
from groundup.text.retrieval.retriever import Retriever

_SPEC = importlib.util.spec_from_file_location(
    "answers", Path(__file__).parents[2] / "benchmarks" / "answers.py"
)
assert _SPEC is not None and _SPEC.loader is not None
answers: Any = importlib.util.module_from_spec(_SPEC)
sys.modules["answers"] = answers
_SPEC.loader.exec_module(answers)
ITEMS = json.loads(answers.QUESTIONS.read_text(encoding="utf-8"))


def test_there_are_twenty_questions_with_facts_and_sources() -> None:
    assert len(ITEMS) == 20 == len({item["question"] for item in ITEMS})
    for item in ITEMS:
        assert item["facts"] and item["sources"]
        assert not answers.states_facts(item["question"], item["facts"]), "the question gives its answer away"
        assert all(re.compile(fact) for fact in item["facts"])


@pytest.mark.parametrize(
    ("answer", "right"),
    [("shutil.rmtree: Recursively delete a directory tree.", True), ("shutil.rmtree DELETES the tree.", True),
     ("shutil.rmtree: Recursively copy a directory tree.", False), ("shutil.move: delete a directory tree", False)],
)  # fmt: skip
def test_every_stated_fact_is_needed_in_any_form(answer: str, right: bool) -> None:
    item = next(item for item in ITEMS if "rmtree" in item["facts"])
    assert answers.judge(item, answer, "shutil.py").right is right
    assert not answers.judge(item, answer, "os.py").sourced


def test_the_rule_copies_the_passage_found() -> None:
    passage = Passage(
        "shutil.rmtree", "shutil.py", "shutil.rmtree: Recursively delete a directory tree or folder.\nx"
    )
    items = [item for item in ITEMS if "rmtree" in item["facts"]]
    (judged,) = answers.rule_answers(Retriever([passage]), items)
    assert judged.sourced and judged.answer == passage.text.split("\n")[0]
    assert answers.recall(Retriever([passage]), items) == {1: 1, 2: 1, 4: 1}
