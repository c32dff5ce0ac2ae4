"""Book content -> a PDF, typeset by typst from `book.typ`.

in:  a `BookContent`, a scratch folder
out: the PDF's bytes and its number of pages; the same content gives the same bytes

Text reaches typst only as JSON and is never parsed as markup; typst can read nothing outside the folder.
"""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typst

from groundup.book.content import Block, BookContent
from groundup.book.palette import PAPER, SHADES

_LONG_RUN = re.compile(r"[^\s\u200b]{24,}")


def pdf(book_content: BookContent, folder: Path) -> tuple[bytes, int]:
    """Typeset `book_content` in `folder`, the only folder typst can read."""
    main = _prepare(book_content, folder)
    compiler = typst.Compiler(str(main), root=str(folder))
    data = compiler.compile(format="pdf", timestamp=0)
    assert isinstance(data, bytes), type(data)
    return data, int(json.loads(compiler.query("<pages>", field="value", one=True)))


def pages_as_svg(book_content: BookContent, folder: Path) -> list[bytes]:
    """The book's pages as SVG files."""
    images = typst.Compiler(str(_prepare(book_content, folder)), root=str(folder)).compile(format="svg")
    assert images is not None
    return images if isinstance(images, list) else [images]


def _prepare(book_content: BookContent, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    payload = asdict(book_content)
    payload["chapters"] = [
        {"title": breakable(chapter.title), "number": chapter.number,
         "blocks": [_block(block) for block in chapter.blocks]}
        for chapter in book_content.chapters
    ]  # fmt: skip
    payload["palette"] = PAPER
    payload["shades"] = SHADES
    (folder / "book.json").write_text(json.dumps(payload), encoding="utf-8")
    main = folder / "book.typ"
    shutil.copyfile(Path(__file__).with_name("book.typ"), main)
    return main


def _block(block: Block) -> dict[str, Any]:
    payload: dict[str, Any] = _each_text(asdict(block))
    return payload | {"kind": type(block).__name__.lower()}


def _each_text(value: Any, key: str = "") -> Any:
    if isinstance(value, str):
        return value if key in ("svg", "name", "align") else breakable(value)
    if key == "spans":
        return [{"text": _breakable_span(span["text"]), "shade": span["shade"]} for span in value]
    if isinstance(value, dict):
        return {name: _each_text(inner, name) for name, inner in value.items()}
    return [_each_text(inner, key) for inner in value] if isinstance(value, list | tuple) else value


def _breakable_span(text: str) -> str:
    """Text of a coloured span: breakable at its end, with runs of spaces kept."""
    text = _LONG_RUN.sub(_with_breaks, text)
    return re.sub(r" {2,}", lambda match: "\u00a0" * len(match[0]), text) + "\u200b"


def breakable(text: str) -> str:
    """Text for a narrow column: long words may break, and indents keep their width."""
    text = _LONG_RUN.sub(_with_breaks, text)
    return re.sub(r"(?m)^ +| {2,}", lambda match: "\u00a0" * len(match[0]), text)


def _with_breaks(match: re.Match[str]) -> str:
    return "\u200b".join(re.findall(".{1,6}", match[0]))
