"""Terminal output of documents and search results, with document text made safe to print.

in:  DocumentHistory
out: tables on a rich Console; document text is printed as plain text, without markup or control characters
"""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from groundup.core.standard_streams import ORDERING
from groundup.text.inspect.report import Diff, DocumentHistory, Event

_SHOWN = 4000
"""Characters of a text that are printed."""
_DIFF_STYLES = {"=": "", "-": "red strike", "+": "green", "~": "dim italic"}
# Escape sequences could rewrite the screen, and directional marks reorder what stands on it: both are made visible.
_VISIBLE = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {0x7F: "\u2421"}
_VISIBLE |= dict.fromkeys([*range(0x80, 0xA0), *ORDERING], "\ufffd")
_ONE_LINE = _VISIBLE | {ord("\n"): "\u240a", ord("\t"): " "}


def print_found(documents: Sequence[DocumentHistory], console: Console, limit: int) -> None:
    """Search results."""
    if not documents:
        console.print("nothing found")
        return
    for document in documents:
        console.print(
            one_line(f"{document.id}  {document.source}: ")
            + one_line(document.path, "bold")
            + one_line(f"  {document.outcome}")
        )
        console.print(one_line(f"  {document.text}", "dim"), no_wrap=True, overflow="ellipsis")
    if len(documents) == limit:
        console.print(f"first {limit} results; raise --limit for more", style="dim")


def print_document(document: DocumentHistory, console: Console) -> None:
    """History and text of one document."""
    facts = [document.source, document.language, document.licence, f"{document.bytes:,} bytes"]
    console.print(one_line(document.path, "bold"))
    console.print(
        one_line(f"{document.id}  {document.outcome}"), one_line(" · ".join(filter(None, facts)), "dim")
    )
    for event in document.events:
        console.print(
            one_line(f"  {event.stage}, {event.step}: {event.outcome}, {event.reason}{_numbers(event)}")
        )
    if document.duplicate_of:
        kept, similarity, kind = document.duplicate_of
        console.print(one_line(f"  duplicate of {kept} ({kind}, similarity {similarity:.0%})"))
    for hit in document.hits:
        console.print(
            one_line(f"  shares {hit['overlap']} words with {hit['task']}, item {hit['item']}: {hit['text']}")
        )
    if document.metrics:
        table = new_table("metrics", "metric", ">value")
        for name, value in document.metrics.items():
            table.add_row(one_line(name), f"{value:,.4g}")
        console.print(table)
    if document.changes:
        console.print("changes", style="italic")
        console.print(difference(document.changes))
    console.print("text as read", style="italic")
    console.print(plain_text(document.text[:_SHOWN]))
    left = len(document.text) + document.more - _SHOWN
    if left > 0:
        console.print(f"[{left:,} more characters; --json has them]", style="dim", markup=False)


def plain_text(text: str, style: str = "") -> Text:
    """Document text without anything that a terminal would interpret."""
    return Text(text.translate(_VISIBLE), style)


def one_line(text: str, style: str = "") -> Text:
    """The same for a name, without line breaks."""
    return Text(text.translate(_ONE_LINE), style)


def difference(diff: Diff) -> Text:
    """Difference of two texts, in red and green."""
    return Text.assemble(*(_piece(op, text) for op, text in diff))


def new_table(title: str | None, *columns: str) -> Table:
    """A table without a frame; columns that begin with > are right-aligned, those with < keep to one line."""
    table = Table(title=one_line(title) if title else None, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        right, narrow = name.startswith(">"), name.startswith("<")
        table.add_column(name.lstrip("<>"), justify="right" if right else "left", no_wrap=right or narrow,
                         overflow="ellipsis" if narrow else "fold")  # fmt: skip
    return table


def spell_bytes(number: int) -> str:
    """`7.8 MB`"""
    size = float(number)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _numbers(event: Event) -> str:
    """Numbers and detail of an event."""
    value = "" if event.value is None else f" {event.value:,g}"
    limit = "" if event.threshold is None else f" (limit {event.threshold:,g})"
    return f"{value}{limit} {event.detail}".rstrip()


def _piece(op: str, text: str) -> Text:
    return plain_text(f" [{text}] " if op == "~" else text, _DIFF_STYLES[op])
