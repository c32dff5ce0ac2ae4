"""Task `docstrings`: questions about Python functions and classes, answered from docstrings and signatures.

in:  a document whose path ends in .py (read by `ast`, never run)
out: what does X do, what are X's parameters, which function does Y, write X's signature, what is module M for

Answers begin with the name they are about, so that an answer can be matched with its question.
"""

import ast
import inspect
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.core.records import Document
from groundup.core.rng import derive_seed
from groundup.evaluate.grading import TEXT_METRICS, grade_text
from groundup.evaluate.tasks import Example

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
_PATH = re.compile(r"^(?P<module>.+)\.py(#part\d+)?$")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


@dataclass(frozen=True)
class _Thing:
    """A function, class or module with a docstring."""

    subject: str
    what: str
    summary: str
    parameters: tuple[str, ...] | None = None
    declaration: str = ""


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
        """Every public thing's questions, in the order of the file."""
        path = _PATH.match(document.path)
        tree = _parse(document.text) if path else None
        if path is None or tree is None:
            return []
        module = path["module"].replace("/", ".").removesuffix(".__init__")
        examples: dict[str, Example] = {}
        for thing in self._things(tree, module):
            for kind, answer, names in self._answers(thing, module):
                example = _example(document, thing, module, kind, answer, names)
                # A name that is defined twice (for two platforms, say) keeps its first definition.
                examples.setdefault(example.id, example)
        return list(examples.values())

    def grade(self, example: Example, answer: str) -> dict[str, float]:
        """chrF against the docstring, fraction of the names in the answer, exact match."""
        return grade_text(answer, example.answer, example.names)

    def _things(self, tree: ast.Module, module: str) -> Iterator[_Thing]:
        summary = self._summary(tree)
        if summary:
            yield _Thing(module, "module", summary)
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                if text := self._summary(node):
                    yield _Thing(f"{module}.{node.name}", "class", text)
                for inner in node.body:
                    yield from self._function(inner, f"{module}.{node.name}", "method")
            else:
                yield from self._function(node, module, "function")

    def _function(self, node: ast.stmt, where: str, what: str) -> Iterator[_Thing]:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            return
        summary = self._summary(node)
        if not summary:
            return
        parameters = _parameters(node.args)
        if parameters and parameters[0] in ("self", "cls") and what == "method":
            parameters = parameters[1:]
        fits = len(parameters) <= self.max_parameters
        declaration = f"def {node.name}({ast.unparse(node.args)})" if fits else ""
        yield _Thing(f"{where}.{node.name}", what, summary, parameters if fits else None, declaration)

    def _answers(self, thing: _Thing, module: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        name = thing.subject.rsplit(".", 1)[-1]
        if thing.what == "module":
            yield "module", f"{thing.subject}: {thing.summary}", (name,)
            return
        yield "does", f"{thing.subject}: {thing.summary}", (name,)
        first = _first_sentence(thing.summary)
        if 20 <= len(first) <= 120:
            yield "which", f"{thing.subject} is the {thing.what} of {module} that does this.", (name,)
        if thing.parameters:
            yield "parameters", f"{thing.subject} takes {_listed(thing.parameters)}.", thing.parameters
        if thing.declaration and len(thing.declaration) <= 120:
            yield "signature", f"{thing.subject}: {thing.declaration}", (name, *(thing.parameters or ()))

    def _summary(self, node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
        """The docstring's first paragraph, cut after the last sentence that fits; "" if it has fewer than 3 words."""
        text = ast.get_docstring(node, clean=False) or ""
        paragraph = " ".join(inspect.cleandoc(text.strip()[:4000]).split("\n\n", 1)[0].split())
        if len(paragraph) > self.max_answer_chars:
            ends = [m.end() for m in _SENTENCE_END.finditer(paragraph[: self.max_answer_chars])]
            paragraph = paragraph[: ends[-1]] if ends else ""
        return paragraph if len(paragraph.split()) >= 3 else ""


def _parse(text: str) -> ast.Module | None:
    """The tree of a source; None for what is no Python, or nested beyond the parser's limits."""
    if '"""' not in text and "'''" not in text:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _parameters(arguments: ast.arguments) -> tuple[str, ...]:
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
    document: Document, thing: _Thing, module: str, kind: str, answer: str, names: tuple[str, ...]
) -> Example:
    key = f"{document.id}:{kind}:{thing.subject}"
    forms = QUESTIONS[kind]
    question = forms[derive_seed(key) % len(forms)].format(
        subject=thing.subject, what=thing.what, module=module, summary=_first_sentence(thing.summary)
    )
    return Example(key, kind, document.id, thing.subject, question, answer, names)
