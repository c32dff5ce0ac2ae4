"""The `groundup inspect` command.

in:  a Corpus, and a query
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
from groundup.text.inspect.lookup import document_history, find_documents
from groundup.text.inspect.overview import print_report
from groundup.text.inspect.page import write_page
from groundup.text.inspect.report import plain
from groundup.text.inspect.terminal import ORDERING, print_document, print_found


@dataclass(frozen=True, slots=True)
class InspectQuery:
    """What to show: one document, search results, or the corpus report, in the terminal or as a page."""

    document: str = ""
    search: str = ""
    limit: int = 20
    page: Path | None = None
    as_json: bool = False


def run_inspect(corpus: Corpus, title: str, query: InspectQuery) -> None:
    """Print the result of a query. Raises DataError for unknown documents and unwritable pages."""
    console = Console(highlight=False)
    if query.document:
        document = document_history(corpus, query.document)
        _json(document) if query.as_json else print_document(document, console)
    elif query.search:
        documents = find_documents(corpus, query.search, query.limit)
        _json(documents) if query.as_json else print_found(documents, console, query.limit)
    elif query.page is not None:
        if not query.page.parent.is_dir() or query.page.is_dir():
            raise DataError(f"--page {query.page}: name a file in a folder that is there, e.g. corpus.html")
        write_page(collect(corpus, title), query.page)
        print(query.page)
    else:
        report = collect(corpus, title)
        _json(report.numbers()) if query.as_json else print_report(report, console)


def _json(value: Any) -> None:
    """Print JSON with characters escaped that a terminal would interpret."""
    text = json.dumps(plain(value), indent=1, ensure_ascii=False)
    print(text.translate({code: f"\\u{code:04x}" for code in [0x7F, *range(0x80, 0xA0), *ORDERING]}))
