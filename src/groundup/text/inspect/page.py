"""Corpus report as one self-contained HTML file.

in:  CorpusReport
out: a file below 15 MB, whatever the corpus's size

Documents may contain anything. The data is JSON in a non-executable block with every `<` escaped; the script creates
only text nodes from it; the content security policy allows this script and style by hash, and no requests.
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
from groundup.text.inspect.report import Amount, CorpusReport, plain

SAMPLE_BYTES = 10_000_000
"""Size limit of documents with text."""
INDEX_BYTES = 3_000_000
"""Size limit of the index of documents by id and path."""
_NAME_CHARS = 300
"""Maximum characters of a path or a rejects-log detail."""


def write_page(report: CorpusReport, path: Path) -> None:
    """Write the page to `path`."""
    write_text(path, page(report))


def page(report: CorpusReport) -> str:
    """The HTML page."""
    script, style = _file("figures.js") + _file("documents.js"), _file("page.css")
    policy = (
        f"default-src 'none'; script-src {_allowed(script)}; style-src {_allowed(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(_file("page.html")).substitute(
        title=escape(report.title), policy=policy, style=style, script=script, data=_block(_data(report))
    )


def _data(report: CorpusReport) -> dict[str, Any]:
    """Data of the script."""
    payload: dict[str, Any] = {
        name: plain(getattr(report, name)) for name in report.__slots__ if name not in ("documents", "drawn")
    }
    documents, index = _fitting(_samples(report), SAMPLE_BYTES), _fitting(_rows(report), INDEX_BYTES)
    corpus = sum((amount for _, amount in report.corpus), Amount())
    totals = {"read": report.amount(), "kept": report.amount(""), "corpus": corpus, "funnel": report.funnel()}
    columns = list(dict.fromkeys(name for document in documents for name in document["metrics"]))
    for document in documents:
        document["metrics"] = [document["metrics"].get(name) for name in columns]
    there = {document["id"] for document in documents}
    return payload | {
        "columns": columns,
        **{name: plain(value) for name, value in totals.items()},
        "documents": {document["id"]: document for document in documents},
        "index": index,
        "unlisted": report.amount().documents - len(index),
        "unshown": len(report.documents) - len(documents),
        "drawn": sum(id in there for id in report.drawn),
    }


def _samples(report: CorpusReport) -> Iterator[dict[str, Any]]:
    """Documents with text: clusters first, then the first of every group, the second ..., then the random
    sample.
    """
    ids = [id for cluster in report.duplicates.shown for id in cluster.ids()]
    deepest = max((len(group.ids) for group in report.groups), default=0)
    ids += [group.ids[rank] for rank in range(deepest) for group in report.groups if rank < len(group.ids)]
    ids += report.drawn
    for id in dict.fromkeys(ids):
        if id in report.documents:
            document = plain(report.documents[id])
            del document["final"]
            document["metrics"] = {name: float(f"{value:.4g}") for name, value in document["metrics"].items()}
            for event in document["events"]:
                event["detail"] = _cut(event["detail"])
            yield document | {"path": _cut(document["path"]), "hits": document["hits"][:5]}


def _rows(report: CorpusReport) -> Iterator[list[Any]]:
    for id, path, *others in report.index:
        yield [id, _cut(path), *others]


def _fitting(items: Iterator[Any], limit: int) -> list[Any]:
    """The first items that fit into `limit` bytes of the page."""
    fitting = []
    for item in items:
        limit -= len(_block(item).encode()) + 1
        if limit < 0:
            break
        fitting.append(item)
    return fitting


def _cut(text: str) -> str:
    half = _NAME_CHARS // 2
    return text if len(text) <= _NAME_CHARS else f"{text[:half]}...{text[-half:]}"


def _block(value: Any) -> str:
    """JSON that can't end its HTML block."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )


def _allowed(code: str) -> str:
    """Content-security-policy hash of this code."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
