"""What `groundup inspect` does, once it knows which corpus is meant.

in:  a Corpus, and what is asked
out: tables or JSON on stdout, or a page
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from groundup.core.errors import DataError
from groundup.text.inspect.collect import collect
from groundup.text.inspect.corpus import Corpus
from groundup.text.inspect.lookup import document_story, find_documents
from groundup.text.inspect.overview import print_story
from groundup.text.inspect.page import write_page
from groundup.text.inspect.story import plain
from groundup.text.inspect.terminal import ORDERING, print_document, print_found


@dataclass(frozen=True, slots=True)
class Question:
    """What to show: one document, those that hold some words, or the corpus, in the terminal or as a page."""

    document: str = ""
    search: str = ""
    limit: int = 20
    page: Path | None = None
    as_json: bool = False


def answer(corpus: Corpus, title: str, question: Question) -> None:
    """Print what is asked. Raises DataError for what isn't there, and for a page that can't be written."""
    out = Console(highlight=False)
    if question.document:
        document = document_story(corpus, question.document)
        _json(document) if question.as_json else print_document(document, out)
    elif question.search:
        found = find_documents(corpus, question.search, question.limit)
        _json(found) if question.as_json else print_found(found, out, question.limit)
    elif question.page is not None:
        if not question.page.parent.is_dir() or question.page.is_dir():
            raise DataError(
                f"--page {question.page}: name a file in a folder that is there, e.g. corpus.html"
            )
        write_page(collect(corpus, title), question.page)
        print(question.page)
    else:
        story = collect(corpus, title)
        _json(story.numbers()) if question.as_json else print_story(story, out)


def _json(value: Any) -> None:
    """JSON in which nothing stands as itself that a terminal would obey."""
    said = json.dumps(plain(value), indent=1, ensure_ascii=False)
    print(said.translate({code: f"\\u{code:04x}" for code in [0x7F, *range(0x80, 0xA0), *ORDERING]}))
