"""The `groundup inspect` command.

in:  a Corpus, and a query
out: tables or JSON on stdout, or a page
"""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from groundup.core.errors import DataError
from groundup.core.standard_streams import print_json
from groundup.text.inspect.collect import collect
from groundup.text.inspect.corpus import Corpus
from groundup.text.inspect.lookup import document_history, find_documents
from groundup.text.inspect.overview import print_report
from groundup.text.inspect.page import write_page
from groundup.text.inspect.report import plain
from groundup.text.inspect.terminal import print_document, print_found


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
        print_json(plain(document)) if query.as_json else print_document(document, console)
    elif query.search:
        documents = find_documents(corpus, query.search, query.limit)
        print_json(plain(documents)) if query.as_json else print_found(documents, console, query.limit)
    elif query.page is not None:
        if not query.page.parent.is_dir() or query.page.is_dir():
            raise DataError(f"--page {query.page}: name a file in a folder that is there, e.g. corpus.html")
        write_page(collect(corpus, title), query.page)
        print(query.page)
    else:
        report = collect(corpus, title)
        print_json(plain(report.numbers())) if query.as_json else print_report(report, console)
