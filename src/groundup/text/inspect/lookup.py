"""Document lookup by id or search.

in:  a Corpus, and an id, an id prefix, or words
out: DocumentHistory
"""

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from groundup.core.errors import DataError
from groundup.text.documents import DOCUMENTS, REJECTS
from groundup.text.inspect.corpus import CLUSTERS, DOCUMENT_COLUMNS, HITS, Corpus
from groundup.text.inspect.differences import changes
from groundup.text.inspect.report import Bound, DocumentHistory, Event
from groundup.text.inspect.scan import groups, ids_like, rows_with, tables

COMPARED = 100_000
"""Characters of a text that are held in memory, compared, or shown, unless the whole text is requested."""


def document_history(corpus: Corpus, prefix: str) -> DocumentHistory:
    """Full history and text of the document (or rejected file) whose id begins with `prefix`.

    Raises DataError if there is none, or more than one.
    """
    rejects = tables(corpus.ingested / REJECTS, ["id"])
    ids = ids_like(corpus.rows(), prefix, 9) or ids_like(rejects, prefix, 9)
    if not ids:
        raise DataError(
            f"no document's id begins with `{prefix}`. `groundup inspect --search WORDS` finds ids"
        )
    if len(ids) > 1 and prefix not in ids:
        raise DataError(f"more than one document's id begins with `{prefix}`: {', '.join(ids[:8])}")
    id = prefix if prefix in ids else ids[0]
    return document_histories(corpus, [id], room=None)[id]


def find_documents(corpus: Corpus, words: str, limit: int = 20) -> list[DocumentHistory]:
    """The first `limit` documents that contain every one of `words` in path or text (case-insensitive).

    Their `text` is the place of the first word. Rejected files are found by path and reason.
    """
    wanted = words.split()
    if not wanted:
        raise DataError("search for what? `groundup inspect --search WORDS`")
    places: dict[str, str] = {}
    read = groups(corpus.ingested / DOCUMENTS, ["id", "path", "text"])
    for row in _holding(read, wanted, ("path", "text"), limit):
        places[row["id"]] = _around(row["text"], wanted[0])
    about = corpus.rows_of(places, DOCUMENT_COLUMNS)
    documents = [DocumentHistory(**about[id], text=place) for id, place in places.items() if id in about]
    rejects = tables(corpus.ingested / REJECTS)
    for row in _holding(rejects, wanted, ("path", "reason", "detail"), limit - len(documents)):
        if row["outcome"] == "rejected" and row["id"] not in places:
            outcome = f"rejected: {row['reason']}"
            documents.append(
                DocumentHistory(row["id"], row["source"], row["path"], outcome, text=row["detail"])
            )
    return documents


def read_rules(corpus: Corpus) -> list[Bound]:
    """Rules of all steps, from rules.json."""
    path = corpus.curated_path("rules.json")
    rules = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def bound(rule: dict[str, Any]) -> Bound:
        metric = rule["metric"].removeprefix(rule["step"] + ".")
        limits = (_finite(rule.get(side)) for side in ("at_least", "at_most"))
        return Bound(rule["step"], rule["reason"], metric, *limits)

    return [bound(rule) for rule in rules]


def document_histories(corpus: Corpus, ids: Collection[str], room: int | None) -> dict[str, DocumentHistory]:
    """Histories of the documents. `room`: characters of text, None = all."""
    events: dict[str, list[Event]] = defaultdict(list)
    paths: dict[str, tuple[str, str]] = {}
    for stage, folder in corpus.stages():
        for row in rows_with(folder / REJECTS, ids):
            paths.setdefault(row["id"], (row["source"], row["path"]))
            columns = {name: row[name] or "" for name in ("step", "outcome", "reason", "detail")}
            value, threshold = _finite(row["value"]), _finite(row["threshold"])
            events[row["id"]].append(Event(stage, **columns, value=value, threshold=threshold))
    rows = corpus.rows_of(ids)
    changed = {
        id
        for id, columns in events.items()
        if any(e.stage == "curate" and e.outcome == "changed" for e in columns)
    }
    texts = _texts(corpus, ids, room, changed)
    kept_copies = {row["id"]: (row["kept"], row["similarity"], row["kind"])
             for row in rows_with(corpus.curated_path(CLUSTERS), ids) if row["id"] != row["kept"]}  # fmt: skip
    hits: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows_with(corpus.curated_path(HITS), ids):
        hits[row["id"]].append({name: row[name] for name in ("task", "item", "overlap", "text")})
    return {
        id: DocumentHistory(
            **_about(id, rows.get(id), paths.get(id), events[id]),
            **texts.get(id, {}),
            events=tuple(events[id]),
            duplicate_of=kept_copies.get(id),
            hits=tuple(hits[id]),
        )
        for id in ids
        if id in rows or id in paths
    }


def _finite(value: float | None) -> float | None:
    """The number, or None if JSON can't represent it."""
    return None if value is None or not math.isfinite(value) else float(value)


def _holding(
    rows: Iterator[pa.Table], wanted: Sequence[str], columns: Sequence[str], limit: int
) -> Iterator[dict[str, Any]]:
    """The first `limit` rows that contain every wanted word in one of the columns."""
    left = limit
    for table in rows:
        if left <= 0:
            return
        hit = np.ones(table.num_rows, bool)
        for word in wanted:
            inside = np.zeros(table.num_rows, bool)
            for name in columns:
                contains: Any = pc.match_substring(table.column(name), word, ignore_case=True)
                inside |= pc.fill_null(contains, False).to_numpy()
            hit &= inside
        matches = table.filter(pa.array(hit)).slice(0, left).to_pylist()
        left -= len(matches)
        yield from matches


def _about(
    id: str, row: dict[str, Any] | None, place: tuple[str, str] | None, events: list[Event]
) -> dict[str, Any]:
    """Columns of document_metrics/; for a rejected file, those of its rejects-log entry."""
    if row is None:
        assert place is not None, id
        rejection = next((event for event in events if event.outcome == "rejected"), events[0])
        return {
            "id": id,
            "source": place[0],
            "path": place[1],
            "outcome": f"{rejection.outcome}: {rejection.reason}",
        }
    numbers = {
        name: value for name, value in row.items() if isinstance(value, float) and math.isfinite(value)
    }
    return {name: row[name] for name in DOCUMENT_COLUMNS} | {"metrics": numbers}


def _texts(
    corpus: Corpus, ids: Collection[str], room: int | None, changed: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Per id: text, omitted characters, licence, and the corpus text if it differs."""
    raw: dict[str, dict[str, Any]] = {}
    for row in rows_with(corpus.ingested / DOCUMENTS, ids, ["id", "text", "licence"]):
        most = COMPARED if room is not None and row["id"] in changed else room
        raw[row["id"]] = {"text": row["text"][:most], "licence": row["licence"], "more": len(row["text"])}
    for row in rows_with(corpus.curated_path(DOCUMENTS), changed, ["id", "text"]):
        before = raw[row["id"]]["text"]
        after = row["text"] if room is None else row["text"][:COMPARED]
        raw[row["id"]] |= {"changes": changes(before, after, room or COMPARED), "final": after[:room]}
    for document in raw.values():
        document["text"] = document["text"][:room]
        document["more"] -= len(document["text"])
    return raw


def _around(text: str, word: str) -> str:
    """Place of a word in a text; the beginning if the word is only in the path."""
    at = max(text.lower().find(word.lower()), 0)
    start = max(at - 60, 0)
    return f"{'...' if start else ''}{' '.join(text[start : at + 160].split())}{'...' if at + 160 < len(text) else ''}"
