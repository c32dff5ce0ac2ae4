"""A finished run -> one picture of some pages of its book, side by side, e.g. for a README.

    python tools/book_picture.py workspace stdlib docs/images/book.png
    python tools/book_picture.py workspace stdlib docs/images/book.png --pages 1 3 7

in:  a workspace and the name of a complete run
out: a PNG
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import typst

from groundup.book.book import Book
from groundup.book.chapters import book_content
from groundup.book.content import BookContent
from groundup.book.load_run import LoadedRun
from groundup.book.render_pdf import pages_as_svg
from groundup.core.atomic_io import write_bytes
from groundup.core.store import Store

_SHEET = """
#set page(width: auto, height: auto, margin: 14pt, fill: rgb("#e9e6df"))
#stack(dir: ltr, spacing: 12pt, ..json("pages.json").map(page =>
  box(stroke: 0.4pt + rgb("#c9c5bb"), image(page, width: 150pt))))
"""


def picture(whole: BookContent, pages: Sequence[int], folder: Path) -> bytes:
    """The numbered pages (from 1; those the book doesn't have are left out) on one sheet, as a PNG."""
    drawn = pages_as_svg(whole, folder)
    names = []
    for page in pages:
        if 1 <= page <= len(drawn):
            names.append(f"page-{page}.svg")
            (folder / names[-1]).write_bytes(drawn[page - 1])
    (folder / "pages.json").write_text(json.dumps(names), encoding="utf-8")
    (folder / "sheet.typ").write_text(_SHEET, encoding="utf-8")
    sheet = typst.compile(str(folder / "sheet.typ"), root=str(folder), format="png", ppi=220)
    return bytes(sheet)


def volume_of_run(workspace: Path, name: str) -> BookContent:
    """The book of a complete run, as its stage wrote it. Raises StoreError naming the runs there are."""
    made = Store(workspace).run(name)
    recipe = Book.model_validate(made.pop("book").manifest()["recipe"])
    return book_content(LoadedRun(made), recipe.title or recipe.name, recipe.author, recipe.blueprint)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description="A picture of some pages of a run's book.")
    parser.add_argument("workspace", type=Path)
    parser.add_argument("run")
    parser.add_argument("out", type=Path)
    parser.add_argument("--pages", type=int, nargs="+", default=[1, 6, 8, 10, 14])
    said = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        write_bytes(said.out, picture(volume_of_run(said.workspace, said.run), said.pages, Path(folder)))


if __name__ == "__main__":
    main()
