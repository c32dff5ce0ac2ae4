"""Retrieved passages in a prompt, and the passage that supports an answer.

in:  passages; the questions of a conversation; an answer
out: the passages that go into the prompt, as one system message; the source of the answer

The message holds the texts of the passages in the order of the search, best first, with an empty line between two. The
same form is used in fine-tuning data, in evaluation and in chat.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from groundup.core.records import Message
from groundup.text.documents import TableWriter
from groundup.text.retrieval.corpus_passages import Passage
from groundup.text.retrieval.search import SearchIndex, search_terms

PASSAGES_FILE = "passages.parquet"
EARLIER_WEIGHT = 0.3
"""Weight of a question's scores in the search for the question after it, which may refer to it."""
SUPPORT_SHARE = 0.6
"""Fraction of an answer's terms that the passage which supports it contains."""
MENTION_WEIGHT = 0.1
"""Weight of the logarithm of a passage's mentions: people ask about what is used more often than about the rest."""
_QUESTION_WORDS = """
    a an the of is are does do did what which this for to in and or that it i be by with on as from my
    me we you your how can could want need like would have has get got at if not don t so some any there
    s d
"""
QUESTION_WORDS = frozenset(_QUESTION_WORDS.split())
"""Words of a question that say nothing about what it asks for. They are rare in descriptions, so BM25 trusts them."""
_WORD = re.compile(r"[\w.]+")
_SCHEMA = pa.schema(
    [
        pa.field(name, pa.int64() if name == "mentions" else pa.string())
        for name in Passage.__dataclass_fields__
    ]
)


class Retriever:
    """Search among passages for conversations."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self.passages = passages
        self._index = SearchIndex([item.text for item in passages], [item.name for item in passages])
        self._known = 1 + MENTION_WEIGHT * np.log1p([item.mentions for item in passages])

    def find(self, questions: Sequence[str], count: int) -> list[Passage]:
        """The best passages for the last of a conversation's questions, best first."""
        scores = np.zeros(len(self.passages))
        for question in questions:
            words = [word for word in _WORD.findall(question) if word.lower() not in QUESTION_WORDS]
            scores = EARLIER_WEIGHT * scores + self._index.scores(" ".join(words)) * self._known
        best = np.argsort(-scores, kind="stable")[:count]
        return [self.passages[index] for index in best if scores[index] > 0]


def passages_text(passages: Sequence[Passage]) -> str:
    """The content of the system message that holds passages."""
    return "\n\n".join(passage.text for passage in passages)


def with_passages(messages: Sequence[Message], passages: Sequence[Passage]) -> list[Message]:
    """A conversation with passages in its system message, after the system prompt if it has one."""
    if not passages:
        return list(messages)
    text, rest = passages_text(passages), list(messages)
    if rest and rest[0].role == "system":
        text = f"{rest.pop(0).content}\n\n{text}"
    return [Message("system", text), *rest]


def supporting_passage(answer: str, passages: Sequence[Passage]) -> Passage | None:
    """The passage that contains most of the answer's terms; None where none contains enough of them."""
    terms = set(search_terms(answer))
    if not terms:
        return None
    shares = [
        len(terms & set(search_terms(f"{passage.name} {passage.text}"))) / len(terms) for passage in passages
    ]
    best = max(range(len(shares)), key=shares.__getitem__, default=None)
    return passages[best] if best is not None and shares[best] >= SUPPORT_SHARE else None


def source_of(passage: Passage) -> str:
    """Path and name as a person reads them: `textwrap.py, dedent`."""
    module = passage.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    name = passage.name.removeprefix(f"{module}.")
    return passage.path if name in (passage.path, module) else f"{passage.path}, {name}"


def write_passages(folder: Path, passages: Sequence[Passage]) -> None:
    """Write passages to an artifact's folder."""
    with TableWriter[Passage](folder / PASSAGES_FILE, _SCHEMA) as writer:
        writer.write(passages)


def read_passages(path: Path) -> list[Passage]:
    """The passages of a file that `write_passages` wrote."""
    return [Passage(**row) for row in pq.read_table(path).to_pylist()]
