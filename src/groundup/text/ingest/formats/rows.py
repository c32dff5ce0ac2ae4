"""Row of a table or JSON object -> its text: a text column, or a conversation in one of the common layouts.

in:  a mapping from columns to values
out: the text column's value; else the conversation (messages, ShareGPT, Alpaca, prompt and completion, question and
     answer) as plain text, `User: ...` and `Assistant: ...`; else None

The layouts are tried only where `fields.text` is left at its default.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from groundup.text.ingest.decode import without_surrogates
from groundup.text.ingest.types import ReadOptions

MAX_RECORD_BYTES = 64 << 20
"""Size of one record, which is held in memory several times; a smaller `max_file_bytes` limits it too."""
MAX_VALUES = 500_000
"""Values (numbers, strings, lists, objects) of one JSON document: each takes up to 250 bytes of memory."""

_TURNS = ("messages", "conversations", "conversation")
_PAIRS = (
    ("instruction", ("output", "response", "completion"), ("input", "context")),
    ("prompt", ("completion", "response"), ()),
    ("question", ("answer", "answers", "response"), ("context",)),
)
"""(request, names of the response, names of what the request refers to)."""
LAYOUT_COLUMNS = frozenset(_TURNS) | {
    name for request, responses, contexts in _PAIRS for name in (request, *responses, *contexts)
}
_SPEAKERS = {
    "system": "System", "developer": "System", "user": "User", "human": "User", "prompter": "User",
    "assistant": "Assistant", "gpt": "Assistant", "model": "Assistant", "bot": "Assistant", "chatgpt": "Assistant",
    "tool": "Tool", "function": "Tool", "function_call": "Assistant", "observation": "Tool",
}  # fmt: skip
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_VALUE = re.compile(r"[\[{,]")
_SHOWN_COLUMNS = 20


def parse_json(text: str) -> Any:
    """The value of a JSON document. Raises ValueError, also for one of more than MAX_VALUES values."""
    if text.count(",") + text.count("[") + text.count("{") > MAX_VALUES:
        outside = _STRING.sub("", text)
        values = sum(map(outside.count, ",[{"))
        if values > MAX_VALUES:
            raise ValueError(f"{values} values; at most {MAX_VALUES} are read")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def row_text(record: Any, options: ReadOptions) -> Any:
    """The value of the text column, or a recognised conversation as text; None if there is neither."""
    key = options.fields["text"]
    value = get_field(record, key)
    if value is None and key == "text" and isinstance(record, Mapping) and "text" not in record:
        return conversation_text(record)
    return value


def conversation_text(record: Mapping[str, Any]) -> str | None:
    """The conversation of a row as plain text; None if its layout isn't known."""
    for name in _TURNS:
        if isinstance(record.get(name), list):
            return _joined(map(_turn, record[name]))
    for request, responses, contexts in _PAIRS:
        answer = next((text for name in responses if (text := _answer(record.get(name)))), "")
        if isinstance(record.get(request), str) and answer:
            inputs = [record[name] for name in contexts if isinstance(record.get(name), str) and record[name]]
            return _joined([("User", "\n\n".join([record[request], *inputs])), ("Assistant", answer)])
    return None


def layout_columns(columns: Iterable[str], options: ReadOptions) -> list[str]:
    """The columns of a table that hold a conversation; none if it has the text column or no known layout."""
    names = list(columns)
    if options.fields["text"] != "text" or "text" in names:
        return []
    pairs = any(request in names and set(names) & set(responses) for request, responses, _ in _PAIRS)
    return [name for name in names if name in LAYOUT_COLUMNS] if pairs or set(names) & set(_TURNS) else []


def missing_text(columns: Iterable[str], options: ReadOptions) -> str:
    """Message for rows without the text column, with the columns there are."""
    names = [without_surrogates(str(name))[0][:60] for name in columns]
    shown = ", ".join(names[:_SHOWN_COLUMNS]) + ", ..." * (len(names) > _SHOWN_COLUMNS)
    return f'no {options.fields["text"]!r}; rows have: {shown}; set fields.text = "..."'


def get_field(record: Any, key: str) -> Any:
    """The value under `key`, or under `a.b.c` in nested objects; None if it is missing."""
    if isinstance(record, dict) and key in record:
        return record[key]
    for part in key.split("."):
        record = record.get(part) if isinstance(record, dict) else None
    return record


def to_strings(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a document as strings; values that are neither strings nor numbers are left out."""
    plain = {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for name, value in metadata.items()
    }
    usual = {name: value for name, value in plain.items() if isinstance(value, str | int | float)}
    return {name: without_surrogates(str(value))[0] for name, value in usual.items()}


def _turn(message: Any) -> tuple[str, str]:
    """(speaker, text) of a message; text of its parts where the content is a list."""
    if not isinstance(message, Mapping):
        return "", ""
    role = message.get("role", message.get("from", ""))
    content = message.get("content", message.get("value"))
    if isinstance(content, list):
        parts = (
            part.get("text", part.get("value")) if isinstance(part, Mapping) else part for part in content
        )
        content = "\n\n".join(part for part in parts if isinstance(part, str))
    speaker = _SPEAKERS.get(str(role).lower(), str(role).capitalize())
    return speaker, content if isinstance(content, str) else ""


def _answer(value: Any) -> str:
    """An answer as text: a string, the first of a list, or SQuAD's {"text": [...]}."""
    if isinstance(value, Mapping):
        value = value.get("text")
    if isinstance(value, list):
        value = next(iter(value), None)
        return _answer(value) if isinstance(value, str | Mapping) else ""
    return value if isinstance(value, str) else ""


def _joined(turns: Iterable[tuple[str, str]]) -> str:
    lines: Iterator[str] = (
        f"{speaker}: {text.strip()}" if speaker else text.strip() for speaker, text in turns if text.strip()
    )
    return "\n\n".join(lines)
