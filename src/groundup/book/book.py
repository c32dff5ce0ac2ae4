"""Run -> a book about the model: what was built, from what, how it went, what it can and cannot do.

in:  every artifact of the run, by its label, in the order of the river
out: book.html (one file that needs nothing else) and book.pdf, both the same bytes for the same artifacts
"""

from typing import Any, ClassVar

from pydantic import Field

from groundup.book.chapters import volume
from groundup.book.html import html
from groundup.book.load_run import LoadedRun
from groundup.book.pdf import pdf
from groundup.core.atomic_io import write_bytes, write_text
from groundup.core.recipe import Recipe
from groundup.core.runtime import Runtime
from groundup.core.stage import Artifact, StageContext, stage


class Book(Recipe):
    """How the book is titled. `name` and `blueprint` are filled in by the pipeline."""

    version: ClassVar[int] = 1
    title: str = Field(default="", description="the book's title; empty = the run's name")
    author: str = Field(default="", description="printed on the title page")
    name: str = Field(default="", description="the run's name (filled in)")
    blueprint: str = Field(default="", description="the resolved blueprint (filled in)")


@stage(version=1)
def book(recipe: Book, runtime: Runtime, out: StageContext, **stages: Artifact) -> dict[str, Any]:
    """Write the book. A stage that the blueprint doesn't have has no chapter; a figure that is absent says so."""
    title = recipe.title or recipe.name or "A language model"
    whole = volume(LoadedRun(stages), title, recipe.author, recipe.blueprint)
    page = html(whole)
    printed, pages = pdf(whole, out.temporary / "typst")
    write_text(out.file("book.html"), page)
    write_bytes(out.file("book.pdf"), printed)
    return {"pages": pages, "html_bytes": len(page.encode()), "pdf_bytes": len(printed)}
