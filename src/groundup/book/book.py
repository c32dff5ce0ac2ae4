"""Stage `book`: the artifacts of a run -> a report on the model as HTML and PDF.

in:  every artifact of the run by its label, in pipeline order
out: book.html (self-contained) and book.pdf; the same artifacts give the same bytes
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from groundup.book.chapters import book_content
from groundup.book.load_run import LoadedRun
from groundup.book.render_html import html
from groundup.book.render_pdf import pdf
from groundup.core.atomic_io import write_bytes, write_text
from groundup.core.recipe import Recipe
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, StageContext, stage


class Book(Recipe):
    """Title and author. The pipeline fills in `name` and `blueprint`."""

    version: ClassVar[int] = 1
    title: str = Field(default="", description="title of the book; empty = the run's name")
    author: str = Field(default="", description="author printed on the title page")
    name: str = Field(default="", description="name of the run (filled in by the pipeline)")
    blueprint: str = Field(default="", description="the resolved blueprint (filled in by the pipeline)")


@stage(version=1, kind="book", reads_records=True, headline=("pages",))
def book(recipe: Book, runtime: Runtime, out: StageContext, stages: Mapping[str, Artifact]) -> dict[str, Any]:
    """Write the book. Stages absent from the blueprint have no chapter; absent metrics read "not measured"."""
    title = recipe.title or recipe.name or "A language model"
    whole = book_content(LoadedRun(stages), title, recipe.author, recipe.blueprint)
    page = html(whole)
    printed, pages = pdf(whole, out.temporary / "typst")
    write_text(out.file("book.html"), page)
    write_bytes(out.file("book.pdf"), printed)
    return {"pages": pages, "html_bytes": len(page.encode()), "pdf_bytes": len(printed)}
