"""Task `passages`: questions about prose: the content of a section, a definition, the continuation of a passage.

in:  a document that is not Python source (Markdown, reStructuredText, plain text)
out: a few examples per document, chosen by hash
"""

import re
from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.core.records import Document
from groundup.core.rng import derive_seed
from groundup.evaluate.grading import TEXT_METRICS, grade_text
from groundup.evaluate.tasks import Example
from groundup.text.sentences import count_words, is_complete, join_sentences, split_sentences

QUESTIONS = {
    "section": ('What does the section "{subject}" say?', 'What is "{subject}" about?'),
    "definition": ("What is {subject}?", "What do you know about {subject}?"),
    "goes_on": ('How does the text go on after this: "{subject}"', 'What comes next after this: "{subject}"'),
}
_MARKDOWN_HEADING = re.compile(r"^#{1,6}\s+(.{3,80}?)\s*#*$")
_RST_HEADING = re.compile(r"^(.{3,80})\n([=\-~^\"*#+])\2{2,}\s*$")
_DEFINITION = re.compile(
    r"^(?:An?|The)\s+([a-z][\w-]*(?: [a-z][\w-]*){0,2}) (?:is|are|means) (?:an?|the|any|one) "
)
_PARAGRAPH = re.compile(r"\n\s*\n")


MIN_ANSWER_WORDS = 5


class Passages(Recipe):
    """Questions and answers from headings, definitions and passages of prose."""

    metrics: ClassVar[tuple[str, ...]] = TEXT_METRICS

    max_per_document: int = Field(default=8, ge=1, description="most examples of one document")
    max_answer_chars: int = Field(
        default=320, ge=40, description="longest answer in characters, cut at the end of a sentence"
    )
    max_document_chars: int = Field(
        default=200_000, ge=1000, description="characters of a document that are read; the rest is ignored"
    )

    def examples(self, document: Document) -> list[Example]:
        """At most `max_per_document` examples, in the order of the text."""
        if re.search(r"\.py(#part\d+)?$", document.path):
            return []
        candidates = list(self._candidates(document))
        kept = sorted(candidates, key=lambda item: derive_seed(item.id))[: self.max_per_document]
        chosen = {item.id for item in kept}
        return [item for item in candidates if item.id in chosen]

    def grade(self, example: Example, answer: str) -> dict[str, float]:
        """chrF against the passage, fraction of the names in the answer, exact match."""
        return grade_text(answer, example.answer, example.names)

    def _candidates(self, document: Document) -> Iterator[Example]:
        heading, seen = "", set()
        for number, paragraph in enumerate(_PARAGRAPH.split(document.text[: self.max_document_chars])):
            heading, body = _split_heading(paragraph.strip(), heading)
            sentences = split_sentences(" ".join(body.split()))
            answer = self._fitting(sentences)
            if heading and answer:
                subject, heading = heading, ""
                if subject not in seen:
                    seen.add(subject)
                    yield _example(document, number, "section", subject, answer)
            for sentence in sentences:
                match = _DEFINITION.match(sentence)
                if match and self._fitting([sentence]) and match[1] not in seen:
                    seen.add(match[1])
                    article = sentence.split(" ", 1)[0].lower()
                    yield _example(document, number, "definition", f"{article} {match[1]}", sentence)
            if len(sentences) >= 2 and _is_opening(sentences[0]):
                rest = self._fitting(sentences[1:])
                if rest:
                    yield _example(document, number, "goes_on", sentences[0], rest)

    def _fitting(self, sentences: list[str]) -> str:
        """The first sentences as far as they fit; "" where that is too little for an answer."""
        text = ""
        for sentence in sentences:
            if len(text) + len(sentence) + 1 > self.max_answer_chars:
                break
            text = join_sentences(text, sentence)
        return text if count_words(text) >= MIN_ANSWER_WORDS and is_complete(text) else ""


def _is_opening(sentence: str) -> bool:
    """Whether a sentence is long enough to be asked how the text goes on after it, and short enough to be read."""
    words = count_words(sentence)
    return len(sentence) <= 200 and (len(sentence) >= 40 or (words > len(sentence.split()) and words >= 5))


def _split_heading(paragraph: str, waiting: str) -> tuple[str, str]:
    """(heading, body) of a paragraph; a heading without a body is returned for the next paragraph."""
    rst = _RST_HEADING.match(paragraph)
    if rst:
        return rst[1].strip(), paragraph[rst.end() :].strip()
    first, _, rest = paragraph.partition("\n")
    markdown = _MARKDOWN_HEADING.match(first)
    return (markdown[1], rest.strip()) if markdown else (waiting, paragraph)


def _example(document: Document, number: int, kind: str, subject: str, answer: str) -> Example:
    key = f"{document.id}:{kind}:{number}:{derive_seed(subject):x}"
    forms = QUESTIONS[kind]
    question = forms[derive_seed(key) % len(forms)].format(subject=subject)
    names = (subject.rsplit(" ", 1)[-1],) if kind == "definition" else ()
    return Example(key, kind, document.id, subject, question, answer, names)
