"""Counts and lengths of alignment records.

in:  records
out: their number by kind; by table, kind and split; words of prompts and responses
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

from groundup.align.data.dedup_records import prompt_of
from groundup.core.records import Conversation, LabelledResponse, Message, Ranking, Record
from groundup.core.stage import Metrics
from groundup.evaluate.alignment_data import KINDS, record_kind


def summary(records: Sequence[Record]) -> Metrics:
    """Number of records by kind, and of each table: records by kind and split, words of prompts and responses."""
    by_kind = Counter(record_kind(record) for record in records)
    by_table = Counter((record.source, record_kind(record), record.split) for record in records)
    tables: dict[str, dict[str, dict[str, int]]] = {}
    for (source, kind, split), count in by_table.items():
        tables.setdefault(source, {}).setdefault(kind, {})[split] = count
    return {kind: by_kind[kind] for kind in KINDS} | {"tables": tables, "words": _words(records)}


def _words(records: Sequence[Record]) -> dict[str, dict[str, dict[str, int]]]:
    """Median, 95th percentile and maximum of the words of prompts and responses, by table."""
    lengths: dict[str, dict[str, list[int]]] = defaultdict(lambda: {"prompt": [], "response": []})
    for record in records:
        lengths[record.source]["prompt"].append(_count(prompt_of(record)))
        lengths[record.source]["response"] += [_count(response) for response in _responses(record)]
    return {
        source: {part: _spread(sorted(counts)) for part, counts in parts.items() if counts}
        for source, parts in lengths.items()
    }


def _responses(record: Record) -> Sequence[Sequence[Message]]:
    if isinstance(record, Conversation):
        return [record.messages[-1:]]
    if isinstance(record, Ranking):
        return record.responses
    return [record.response] if isinstance(record, LabelledResponse) else []


def _count(messages: Sequence[Message]) -> int:
    return sum(len(message.content.split()) for message in messages)


def _spread(ordered: Sequence[int]) -> dict[str, int]:
    last = len(ordered) - 1
    return {"median": ordered[last // 2], "p95": ordered[last * 95 // 100], "max": ordered[last]}
