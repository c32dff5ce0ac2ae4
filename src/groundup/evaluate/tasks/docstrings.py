"""Task `docstrings`: questions about Python functions and classes, answered from docstrings and signatures.

in:  a document whose path ends in .py (read by `ast`, never run)
out: what does X do, what are X's parameters, which function does Y, write X's signature, what is module M for

Answers begin with the name they are about, so that an answer can be matched with its question.
"""

import ast
import re
from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.core.records import Document
from groundup.core.rng import derive_seed
from groundup.evaluate.grading import TEXT_METRICS, grade_text
from groundup.evaluate.tasks import Example
from groundup.text.retrieval.python_objects import PythonObject, python_objects

QUESTIONS = {
    "does": ("What does {subject} do?", "What is {subject} for?", "Explain {subject}."),
    "parameters": ("What are the parameters of {subject}?", "Which arguments does {subject} take?"),
    "which": (
        'Which {what} of {module} does this: "{summary}"',
        'Name the {what} in {module} for this: "{summary}"',
    ),
    "signature": ("Write the signature of {subject}.", "How is {subject} declared?"),
    "module": ("What is the module {subject} for?", "What does the module {subject} do?"),
}
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


class Docstrings(Recipe):
    """Questions and answers from the docstrings of Python files."""

    metrics: ClassVar[tuple[str, ...]] = TEXT_METRICS

    max_answer_chars: int = Field(
        default=320, ge=40, description="longest answer in characters, cut at the end of a sentence"
    )
    max_parameters: int = Field(
        default=8, ge=1, description="most parameters of a function that is asked about its parameters"
    )

    def examples(self, document: Document) -> list[Example]:
        """Every public object's questions, in the order of the file."""
        examples: dict[str, Example] = {}
        for item in python_objects(document):
            summary = self._summary(item)
            for kind, answer, names in self._answers(item, summary) if summary else ():
                example = _example(document, item, summary, kind, answer, names)
                # A name that is defined twice (for two platforms, say) keeps its first definition.
                examples.setdefault(example.id, example)
        return list(examples.values())

    def grade(self, example: Example, answer: str) -> dict[str, float]:
        """chrF against the docstring, fraction of the names in the answer, exact match."""
        return grade_text(answer, example.answer, example.names)

    def _answers(self, item: PythonObject, summary: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        name = item.name.rsplit(".", 1)[-1]
        if item.kind == "module":
            yield "module", f"{item.name}: {summary}", (name,)
            return
        yield "does", f"{item.name}: {summary}", (name,)
        if 20 <= len(_first_sentence(summary)) <= 120:
            yield "which", f"{item.name} is the {item.kind} of {item.module} that does this.", (name,)
        parameters = _parameters(item)
        if item.arguments is None or len(parameters) > self.max_parameters:
            return
        if parameters:
            yield "parameters", f"{item.name} takes {_listed(parameters)}.", parameters
        if len(item.declaration) <= 120:
            yield "signature", f"{item.name}: {item.declaration}", (name, *parameters)

    def _summary(self, item: PythonObject) -> str:
        """The docstring's first paragraph, cut after the last sentence that fits; "" if it has fewer than 3 words."""
        paragraph = item.first_paragraph
        if len(paragraph) > self.max_answer_chars:
            ends = [m.end() for m in _SENTENCE_END.finditer(paragraph[: self.max_answer_chars])]
            paragraph = paragraph[: ends[-1]] if ends else ""
        return paragraph if len(paragraph.split()) >= 3 else ""


def _parameters(item: PythonObject) -> tuple[str, ...]:
    """The names of a function's parameters; of a method's without its first one, self or cls."""
    if item.arguments is None:
        return ()
    names = _names(item.arguments)
    return names[1:] if item.kind == "method" and names and names[0] in ("self", "cls") else names


def _names(arguments: ast.arguments) -> tuple[str, ...]:
    plain = [item.arg for item in (*arguments.posonlyargs, *arguments.args)]
    if arguments.vararg:
        plain.append(arguments.vararg.arg)
    plain += [item.arg for item in arguments.kwonlyargs]
    return tuple([*plain, arguments.kwarg.arg] if arguments.kwarg else plain)


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _first_sentence(text: str) -> str:
    end = _SENTENCE_END.search(text)
    return text[: end.end()] if end else text


def _example(
    document: Document, item: PythonObject, summary: str, kind: str, answer: str, names: tuple[str, ...]
) -> Example:
    key = f"{document.id}:{kind}:{item.name}"
    forms = QUESTIONS[kind]
    question = forms[derive_seed(key) % len(forms)].format(
        subject=item.name, what=item.kind, module=item.module, summary=_first_sentence(summary)
    )
    return Example(key, kind, document.id, item.name, question, answer, names)
