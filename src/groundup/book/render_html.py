"""Book content -> one self-contained HTML file: inline styles and SVG, no scripts, no requests.

in:  a `BookContent`
out: the page's HTML. All text is escaped; only the generated SVG is inserted as is
"""

import re
from html import escape
from pathlib import Path

from groundup.book.content import (
    Block,
    BookContent,
    Chapter,
    Code,
    ColouredSpan,
    Dialogue,
    Fact,
    Facts,
    Figure,
    Findings,
    Heading,
    Paragraph,
    StyledSpan,
    Table,
    Tokens,
)
from groundup.book.palette import SHADES, stylesheet, themed

_TAGS = {"strong": "strong", "emphasis": "em", "code": "code"}
_ALIGN = {"l": "", "r": ' class="n"', "m": ' class="m"'}
_SIGNS = {"yes": "✓", "partly": "~", "no": "✗", "unknown": "?"}
_CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def html(book_content: BookContent) -> str:
    """The whole HTML page."""
    body = "\n".join(_chapter(chapter) for chapter in book_content.chapters)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_CSP}">
<meta name="generator" content="groundup">
<title>{escape(book_content.title)}: {escape(book_content.subtitle)}</title>
<style>
{stylesheet()}{_css()}</style>
</head>
<body>
<header class="cover">
<div class="emblem">{_drawing("emblem", book_content.emblem)}</div>
<h1>{escape(book_content.title)}</h1>
<p class="subtitle">{escape(book_content.subtitle)}</p>
<p class="abstract">{escape(book_content.abstract)}</p>
{_facts(book_content.facts)}
<p class="author">{escape(book_content.author)}</p>
</header>
{_contents(book_content.chapters)}
<main>
{body}
</main>
<footer>{escape(book_content.colophon)}</footer>
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
            return f'<p class="{block.role}">{"".join(map(_span, block.styled_spans))}</p>'
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
                f'<figure><div class="tokens" dir="auto">{_coloured(block.spans)}</div>'
                f"{_caption(block.caption)}</figure>"
            )
        case Dialogue():
            return _dialogue(block)
        case Findings():
            return _findings(block)


def _span(span: StyledSpan) -> str:
    tag = _TAGS.get(span.style)
    text = escape(span.text)
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


def _coloured(spans: tuple[ColouredSpan, ...]) -> str:
    return "".join(
        f'<span class="s{(span.shade - 1) % len(SHADES) + 1}">{escape(span.text)}</span>'
        if span.shade
        else escape(span.text)
        for span in spans
    )


def _dialogue(block: Dialogue) -> str:
    turns = "".join(
        f'<div class="turn {"user" if turn.role == "user" else "other"}"><div class="who">{escape(turn.role)}'
        f"{f'<small>{escape(turn.note)}</small>' if turn.note else ''}</div>"
        f'<div class="message" dir="auto">{_coloured(turn.spans)}</div></div>'
        for turn in block.turns
    )
    return f'<figure class="dialogue">{turns}{_caption(block.caption)}</figure>'


def _findings(block: Findings) -> str:
    items = "".join(
        f'<li class="{item.answer}"><span class="sign" aria-label="{item.answer}">{_SIGNS[item.answer]}</span>'
        f"<div><strong>{escape(item.text)}</strong><small>{escape(item.basis)}</small></div></li>"
        for item in block.items
    )
    return f'<ul class="findings">{items}</ul>'


def _drawing(name: str, svg: str, alt: str = "") -> str:
    """An SVG for inlining: without prologue, with unique ids and theme colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    label = f'role="img" aria-label="{escape(alt)}"' if alt else 'aria-hidden="true"'
    return themed(svg.replace("<svg", f"<svg {label}", 1))
