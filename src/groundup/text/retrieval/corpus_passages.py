"""Passages of documents: short texts with a name and a source path, for search and for prompts.

in:  documents
out: of Python sources a passage for each documented public object, of prose pieces of consecutive paragraphs

The text of a Python object's passage names the object before its description and before its declaration, so that an
answer can be copied from it in one run:

    textwrap.dedent: Remove any common leading whitespace from every line in `text`.
    textwrap.dedent: def dedent(text)
    Note that tabs and spaces are both treated as whitespace, ...
"""

import heapq
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from groundup.core.records import Document
from groundup.core.rng import derive_seed
from groundup.text.retrieval.python_objects import PATH, PythonObject, python_objects
from groundup.text.sentences import join_sentences, split_sentences

MAX_PASSAGE_CHARS = 420
MAX_PASSAGES = 100_000
MAX_DECLARATION_CHARS = 200
_HEADING = re.compile(r"^#{1,6}\s+(?P<markdown>.{1,80}?)\s*#*$|^(?P<rst>.{1,80})\n([=\-~^\"*+#])\3{2,}\s*$")
_PARAGRAPH = re.compile(r"\n\s*\n")
_NAME = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document. name: the object or heading that it is about; path: of its document.

    mentions: documents that mention it: the last two parts of a Python object's name.
    """

    name: str
    path: str
    text: str
    mentions: int = 0

    @property
    def id(self) -> str:
        """What identifies the passage within a corpus."""
        return f"{self.path}\n{self.name}\n{self.text}"


def cut_passages(
    documents: Iterable[Document], max_chars: int = MAX_PASSAGE_CHARS, limit: int = MAX_PASSAGES
) -> list[Passage]:
    """The passages of all documents, at most `limit`: of more, those with the smallest hash, in their order."""
    heap: list[tuple[int, int, Passage]] = []
    documents_with: defaultdict[str, set[int]] = defaultdict(set)
    number = 0
    for index, document in enumerate(documents):
        if PATH.match(document.path):
            for word in set(_NAME.findall(document.text)):
                documents_with[word].add(index)
        for passage in document_passages(document, max_chars):
            number += 1
            entry = (-derive_seed(passage.id), number, passage)
            if len(heap) < limit:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)
    chosen = [passage for _, _, passage in sorted(heap, key=lambda entry: entry[1])]
    return [replace(passage, mentions=_mentions(passage, documents_with)) for passage in chosen]


def _mentions(passage: Passage, documents_with: Mapping[str, set[int]]) -> int:
    """Documents in which the last two parts of a Python object's name occur; 0 of prose."""
    if not PATH.match(passage.path):
        return 0
    parts = passage.name.rsplit(".", 2)[-2:]
    return len(set.intersection(*(documents_with.get(part, set()) for part in parts)))


def document_passages(document: Document, max_chars: int) -> Iterator[Passage]:
    """The passages of one document, in its order."""
    if not PATH.match(document.path):
        yield from _prose(document, max_chars)
        return
    names = set()
    for item in python_objects(document):
        # A name that is defined twice (for two platforms, say) keeps its first definition, as in questions.
        if item.name not in names and len(item.docstring.split()) >= 3:
            names.add(item.name)
            yield Passage(item.name, document.path, _describe(item, max_chars))


def _describe(item: PythonObject, max_chars: int) -> str:
    """A Python object's description, its declaration, and more of its docstring as far as it fits."""
    lines = [f"{item.name}: {item.first_paragraph}"[:max_chars]]
    if item.declaration:
        lines.append(f"{item.name}: {item.declaration}"[:MAX_DECLARATION_CHARS])
    _, _, rest = item.docstring.partition("\n\n")
    room = max_chars - sum(map(len, lines)) - len(lines)
    more = _whole_sentences(" ".join(rest.split()), room)
    return "\n".join([*lines, more] if more else lines)


def _prose(document: Document, max_chars: int) -> Iterator[Passage]:
    """Consecutive paragraphs under one heading, each passage at most `max_chars` long."""
    name, text = document.path, ""
    for paragraph in _PARAGRAPH.split(document.text):
        match = _HEADING.match(paragraph.strip())
        body = " ".join((paragraph.strip()[match.end() :] if match else paragraph).split())
        if match and text:
            yield Passage(name, document.path, text)
            text = ""
        name = (match["markdown"] or match["rst"]).strip() if match else name
        for piece in _pieces(body, max_chars):
            if text and len(text) + len(piece) + 1 > max_chars:
                yield Passage(name, document.path, text)
                text = ""
            text = f"{text}\n{piece}" if text else piece
    if text:
        yield Passage(name, document.path, text)


def _pieces(text: str, max_chars: int) -> Iterator[str]:
    """A text as pieces of whole sentences, each at most `max_chars` long; a longer sentence is cut."""
    piece = ""
    for sentence in split_sentences(text):
        if piece and len(piece) + len(sentence) + 1 > max_chars:
            yield piece
            piece = ""
        while len(sentence) > max_chars:
            yield sentence[:max_chars]
            sentence = sentence[max_chars:]
        piece = join_sentences(piece, sentence)
    if piece:
        yield piece


def _whole_sentences(text: str, room: int) -> str:
    """The first sentences of a text that fit into `room` characters."""
    kept = ""
    for sentence in split_sentences(text[: room + 1]):
        if len(kept) + len(sentence) + 1 > room:
            break
        kept = join_sentences(kept, sentence)
    return kept
