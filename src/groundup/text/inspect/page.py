"""A Story -> one HTML file that needs nothing else: styles, script and data are in it, and it asks for nothing.

in:  Story
out: a file below 15 MB, whatever the corpus's size

Documents may hold anything. The page's data is JSON in a block that browsers never run, with every `<` escaped; its
script turns it into text nodes, never into markup; and the page's policy allows that one script and that one style,
by their hashes, and no request at all.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from groundup.core.atomic_io import write_text
from groundup.text.inspect.story import Amount, CorpusReport, plain

SAMPLE_BYTES = 10_000_000
"""The most that documents with their texts may take in the page."""
INDEX_BYTES = 3_000_000
"""The most that the list of documents known by id and path may take."""
_NAME_CHARS = 300
"""Of a path, or of what a ledger says: longer ones are cut."""


def write_page(story: CorpusReport, path: Path) -> None:
    """Write the page to `path`."""
    write_text(path, page(story))


def page(story: CorpusReport) -> str:
    """The whole page."""
    script, style = _file("figures.js") + _file("documents.js"), _file("page.css")
    policy = (
        f"default-src 'none'; script-src {_allowed(script)}; style-src {_allowed(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(_file("page.html")).substitute(
        title=escape(story.title), policy=policy, style=style, script=script, data=_block(_data(story))
    )


def _data(story: CorpusReport) -> dict[str, Any]:
    """What the script reads."""
    said: dict[str, Any] = {
        name: plain(getattr(story, name)) for name in story.__slots__ if name not in ("documents", "drawn")
    }
    documents, index = _fitting(_samples(story), SAMPLE_BYTES), _fitting(_rows(story), INDEX_BYTES)
    corpus = sum((amount for _, amount in story.corpus), Amount())
    totals = {"read": story.amount(), "kept": story.amount(""), "corpus": corpus, "funnel": story.funnel()}
    columns = list(dict.fromkeys(name for document in documents for name in document["measures"]))
    for document in documents:
        document["measures"] = [document["measures"].get(name) for name in columns]
    there = {document["id"] for document in documents}
    return said | {
        "columns": columns,
        **{name: plain(value) for name, value in totals.items()},
        "documents": {document["id"]: document for document in documents},
        "index": index,
        "unlisted": story.amount().documents - len(index),
        "unshown": len(story.documents) - len(documents),
        "drawn": sum(id in there for id in story.drawn),
    }


def _samples(story: CorpusReport) -> Iterator[dict[str, Any]]:
    """Documents with their texts: those of clusters, the first of every group, the second ..., then the drawn ones."""
    ids = [id for cluster in story.duplicates.shown for id in cluster.ids()]
    deepest = max((len(group.ids) for group in story.groups), default=0)
    ids += [group.ids[rank] for rank in range(deepest) for group in story.groups if rank < len(group.ids)]
    ids += story.drawn
    for id in dict.fromkeys(ids):
        if id in story.documents:
            said = plain(story.documents[id])
            del said["final"]
            said["measures"] = {name: float(f"{value:.4g}") for name, value in said["measures"].items()}
            for event in said["events"]:
                event["detail"] = _cut(event["detail"])
            yield said | {"path": _cut(said["path"]), "hits": said["hits"][:5]}


def _rows(story: CorpusReport) -> Iterator[list[Any]]:
    for id, path, *others in story.index:
        yield [id, _cut(path), *others]


def _fitting(items: Iterator[Any], room: int) -> list[Any]:
    """The first of them that take no more than `room` bytes in the page."""
    found = []
    for item in items:
        room -= len(_block(item).encode()) + 1
        if room < 0:
            break
        found.append(item)
    return found


def _cut(text: str) -> str:
    half = _NAME_CHARS // 2
    return text if len(text) <= _NAME_CHARS else f"{text[:half]}...{text[-half:]}"


def _block(value: Any) -> str:
    """JSON that can't end the block it stands in."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )


def _allowed(code: str) -> str:
    """The policy's word for this very text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
