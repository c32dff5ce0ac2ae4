"""A volume -> a printed book, typeset by typst from `book.typ`.

in:  a `Volume`, a folder to work in
out: the PDF's bytes and its number of pages; the same volume gives the same bytes

The words of the book reach typst only as JSON, so that nothing in them is ever read as markup, and typst can open
nothing outside the folder.
"""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typst

from groundup.book.content import Block, Volume
from groundup.book.palette import PAPER, SHADES

_LONG_RUN = re.compile(r"[^\s\u200b]{24,}")


def pdf(volume: Volume, folder: Path) -> tuple[bytes, int]:
    """Typeset `volume`; `folder` holds what typst may read."""
    main = _prepare(volume, folder)
    compiler = typst.Compiler(str(main), root=str(folder))
    data = compiler.compile(format="pdf", timestamp=0)
    assert isinstance(data, bytes), type(data)
    return data, int(json.loads(compiler.query("<pages>", field="value", one=True)))


def pages_as_svg(volume: Volume, folder: Path) -> list[bytes]:
    """The book's pages as drawings."""
    images = typst.Compiler(str(_prepare(volume, folder)), root=str(folder)).compile(format="svg")
    assert images is not None
    return images if isinstance(images, list) else [images]


def _prepare(volume: Volume, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    said = asdict(volume)
    said["chapters"] = [
        {"title": breakable(chapter.title), "number": chapter.number,
         "blocks": [_block(block) for block in chapter.blocks]}
        for chapter in volume.chapters
    ]  # fmt: skip
    said["palette"] = PAPER
    said["shades"] = SHADES
    (folder / "book.json").write_text(json.dumps(said), encoding="utf-8")
    main = folder / "book.typ"
    shutil.copyfile(Path(__file__).with_name("book.typ"), main)
    return main


def _block(block: Block) -> dict[str, Any]:
    said: dict[str, Any] = _each_text(asdict(block))
    return said | {"kind": type(block).__name__.lower()}


def _each_text(value: Any, key: str = "") -> Any:
    if isinstance(value, str):
        return value if key in ("svg", "name", "align") else breakable(value)
    if key == "pieces":
        return [{"text": _piece(piece["text"]), "shade": piece["shade"]} for piece in value]
    if isinstance(value, dict):
        return {name: _each_text(inner, name) for name, inner in value.items()}
    return [_each_text(inner, key) for inner in value] if isinstance(value, list | tuple) else value


def _piece(text: str) -> str:
    """A piece of a sample: its own end is a place to break, single spaces stay what they are."""
    text = _LONG_RUN.sub(_with_breaks, text)
    return re.sub(r" {2,}", lambda match: "\u00a0" * len(match[0]), text) + "\u200b"


def breakable(text: str) -> str:
    """Text that can be set in a narrow column: long runs may break, and indents keep their width."""
    text = _LONG_RUN.sub(_with_breaks, text)
    return re.sub(r"(?m)^ +| {2,}", lambda match: "\u00a0" * len(match[0]), text)


def _with_breaks(match: re.Match[str]) -> str:
    return "\u200b".join(re.findall(".{1,6}", match[0]))
