"""A volume -> one HTML file that needs nothing else: inline styles and drawings, no script, no request.

in:  a `Volume`
out: the page's text. Everything the volume says is escaped; only our own drawings are put in as they are
"""

import re
from html import escape
from pathlib import Path

from groundup.book.content import (
    Block,
    Chapter,
    Code,
    Dialogue,
    Fact,
    Facts,
    Figure,
    Heading,
    Paragraph,
    Piece,
    Run,
    Table,
    Tokens,
    Verdicts,
    Volume,
)
from groundup.book.palette import SHADES, stylesheet, themed

_TAGS = {"strong": "strong", "emphasis": "em", "code": "code"}
_ALIGN = {"l": "", "r": ' class="n"', "m": ' class="m"'}
_SIGNS = {"yes": "✓", "partly": "~", "no": "✗", "unknown": "?"}
_CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def html(volume: Volume) -> str:
    """The whole page."""
    body = "\n".join(_chapter(chapter) for chapter in volume.chapters)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_CSP}">
<meta name="generator" content="groundup">
<title>{escape(volume.title)}: {escape(volume.subtitle)}</title>
<style>
{stylesheet()}{_css()}</style>
</head>
<body>
<header class="cover">
<div class="emblem">{_drawing("emblem", volume.emblem)}</div>
<h1>{escape(volume.title)}</h1>
<p class="subtitle">{escape(volume.subtitle)}</p>
<p class="abstract">{escape(volume.abstract)}</p>
{_facts(volume.facts)}
<p class="author">{escape(volume.author)}</p>
</header>
{_contents(volume.chapters)}
<main>
{body}
</main>
<footer>{escape(volume.colophon)}</footer>
</body>
</html>
"""


def _css() -> str:
    return Path(__file__).with_name("book.css").read_text(encoding="utf-8")


def _contents(chapters: tuple[Chapter, ...]) -> str:
    items = "".join(
        f'<li><a href="#{_anchor(chapter)}"><span class="no">{chapter.number or ""}</span>'
        f"{escape(chapter.title)}</a></li>"
        for chapter in chapters
    )
    return f'<nav aria-label="Contents"><h2>Contents</h2><ol>{items}</ol></nav>'


def _chapter(chapter: Chapter) -> str:
    number = f'<span class="no">{chapter.number}</span>' if chapter.number else ""
    blocks = "\n".join(_block(block) for block in chapter.blocks)
    return (
        f'<section id="{_anchor(chapter)}">\n<h2>{number}{escape(chapter.title)}</h2>\n{blocks}\n</section>'
    )


def _anchor(chapter: Chapter) -> str:
    return re.sub(r"[^a-z0-9]+", "-", chapter.title.lower()).strip("-")


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            return f'<p class="{block.role}">{"".join(map(_run, block.runs))}</p>'
        case Heading():
            return f"<h3>{escape(block.text)}</h3>"
        case Table():
            return _table(block)
        case Figure():
            style = f' style="max-width:{round(block.share * 46)}rem"' if block.share < 1 else ""
            drawing = _drawing(block.name, block.svg, block.alt)
            return f'<figure id="figure-{block.name}"{style}>{drawing}{_caption(block.caption)}</figure>'
        case Code():
            return f'<figure class="code"><pre dir="auto">{escape(block.text)}</pre>{_caption(block.caption)}</figure>'
        case Facts():
            return _facts(block.items)
        case Tokens():
            return (
                f'<figure><div class="tokens" dir="auto">{_pieces(block.pieces)}</div>'
                f"{_caption(block.caption)}</figure>"
            )
        case Dialogue():
            return _dialogue(block)
        case Verdicts():
            return _verdicts(block)


def _run(run: Run) -> str:
    tag = _TAGS.get(run.style)
    text = escape(run.text)
    return f'<{tag} dir="auto">{text}</{tag}>' if tag else text


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>" if text else ""


def _table(table: Table) -> str:
    aligned = [_ALIGN[letter] for letter in table.align]

    def row(cells: tuple[str, ...], tag: str) -> str:
        inner = "".join(
            f'<{tag}{kind} dir="auto">{escape(cell)}</{tag}>'
            for cell, kind in zip(cells, aligned, strict=True)
        )
        return f"<tr>{inner}</tr>"

    head = f"<thead>{row(table.head, 'th')}</thead>" if any(table.head) else ""
    rows = "".join(row(cells, "td") for cells in table.rows)
    total = ' class="total"' if table.total else ""
    return (
        f'<figure class="table"><div class="scroll"><table{total}>{head}<tbody>{rows}</tbody></table></div>'
        f"{_caption(table.caption)}</figure>"
    )


def _facts(items: tuple[Fact, ...]) -> str:
    cells = "".join(
        f"<div><dd>{escape(item.value)}</dd><dt>{escape(item.label)}</dt></div>" for item in items
    )
    return f'<dl class="facts">{cells}</dl>'


def _pieces(pieces: tuple[Piece, ...]) -> str:
    return "".join(
        f'<span class="s{(piece.shade - 1) % len(SHADES) + 1}">{escape(piece.text)}</span>'
        if piece.shade
        else escape(piece.text)
        for piece in pieces
    )


def _dialogue(block: Dialogue) -> str:
    turns = "".join(
        f'<div class="turn {"user" if turn.role == "user" else "other"}"><div class="who">{escape(turn.role)}'
        f"{f'<small>{escape(turn.note)}</small>' if turn.note else ''}</div>"
        f'<div class="said" dir="auto">{_pieces(turn.pieces)}</div></div>'
        for turn in block.turns
    )
    return f'<figure class="dialogue">{turns}{_caption(block.caption)}</figure>'


def _verdicts(block: Verdicts) -> str:
    items = "".join(
        f'<li class="{item.answer}"><span class="sign" aria-label="{item.answer}">{_SIGNS[item.answer]}</span>'
        f"<div><strong>{escape(item.text)}</strong><small>{escape(item.because)}</small></div></li>"
        for item in block.items
    )
    return f'<ul class="verdicts">{items}</ul>'


def _drawing(name: str, svg: str, alt: str = "") -> str:
    """An SVG file as part of the page: no prologue, ids of its own, colours of the theme."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    label = f'role="img" aria-label="{escape(alt)}"' if alt else 'aria-hidden="true"'
    return themed(svg.replace("<svg", f"<svg {label}", 1))
