"""Retrieved passages: their form in a prompt, follow-up questions, and the source of an answer."""

from pathlib import Path

from groundup.core.records import Document, Message
from groundup.text.retrieval.corpus_passages import Passage, cut_passages
from groundup.text.retrieval.retriever import (
    Retriever,
    read_passages,
    source_of,
    supporting_passage,
    with_passages,
    write_passages,
)

DEDENT = Passage(
    "textwrap.dedent", "textwrap.py", "textwrap.dedent: Remove leading whitespace from every line."
)
COPY = Passage("shutil.copyfile", "shutil.py", "shutil.copyfile: Copy data from src to dst.")
QUESTION = Message("user", "What does textwrap.dedent do?")


def test_passages_are_one_system_message_best_first() -> None:
    (system, question) = with_passages([QUESTION], [DEDENT, COPY])
    assert (system.role, question) == ("system", QUESTION)
    assert system.content == f"{DEDENT.text}\n\n{COPY.text}"
    assert with_passages([QUESTION], []) == [QUESTION]


def test_a_system_prompt_stays_before_the_passages() -> None:
    (system, _) = with_passages([Message("system", "Be brief."), QUESTION], [COPY])
    assert system.content == f"Be brief.\n\n{COPY.text}"


def test_a_follow_up_question_is_searched_with_the_question_before_it() -> None:
    retriever = Retriever([COPY, DEDENT])
    assert retriever.find(["What are its parameters?"], 1) == []
    assert retriever.find([QUESTION.content, "What are its parameters?"], 1) == [DEDENT]
    assert retriever.find([QUESTION.content, "And shutil.copyfile?"], 1) == [COPY]


def test_words_of_every_question_find_nothing() -> None:
    chatty = Passage("x", "x.py", "x: how can I get what you want")
    assert Retriever([chatty, COPY]).find(["How can I copy what I want?"], 2) == [COPY]


def test_of_equal_passages_the_more_used_one_comes_first() -> None:
    rare, used = (
        Passage(name, f"{name}.py", "Copy a file.", mentions) for name, mentions in (("a", 1), ("b", 9))
    )
    assert Retriever([rare, used]).find(["copy file"], 2) == [used, rare]


def test_mentions_are_the_documents_with_the_last_two_parts_of_the_name() -> None:
    sources = {"text/wrap.py": '"""Wraps text here."""\ndef dedent(t):\n    """Remove what is common."""',
               "a.py": "import wrap\nwrap.dedent()", "b.py": "dedent", "c.txt": "wrap dedent"}  # fmt: skip
    passages = cut_passages(Document(path, text, "s", path) for path, text in sources.items())
    assert {item.name: item.mentions for item in passages} == {
        "text.wrap": 0, "text.wrap.dedent": 1, "c.txt": 0}  # fmt: skip


def test_the_source_is_the_passage_that_the_answer_repeats() -> None:
    answer = "textwrap.dedent: Remove leading whitespace from every line."
    assert supporting_passage(answer, [COPY, DEDENT]) == DEDENT
    assert supporting_passage("Nothing of this kind was ever written.", [COPY, DEDENT]) is None
    assert supporting_passage(answer, []) is None
    assert supporting_passage("", [COPY]) is None


def test_a_source_is_spelled_as_path_and_name() -> None:
    assert source_of(DEDENT) == "textwrap.py, dedent"
    assert source_of(Passage("json.loads", "json/__init__.py", "")) == "json/__init__.py, loads"
    assert source_of(Passage("json", "json/__init__.py", "")) == "json/__init__.py"
    assert source_of(Passage("Rivers", "water.md", "")) == "water.md, Rivers"


def test_passages_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_passages(tmp_path, [DEDENT, Passage("b", "b.py", "ünï\ncode", 3)])
    assert read_passages(tmp_path / "passages.parquet") == [DEDENT, Passage("b", "b.py", "ünï\ncode", 3)]
