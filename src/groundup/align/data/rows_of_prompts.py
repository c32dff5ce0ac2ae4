"""The prompt of a row, in the layouts that all datasets share.

in:  a row with `prompt`, `messages`, `instruction` and `input`, `question`, ...
out: its messages, without the answer
"""

from collections.abc import Mapping, Sequence
from typing import Any

from groundup.align.data.chat_messages import OnChange, RowError, check_prompt, read_messages, with_system
from groundup.core.records import Message

PROMPTS = (
    "prompt",
    "question",
    "input",
    "instruction",
    "messages",
    "conversations",
    "conversation",
    "context",
)
"""Columns that may hold a prompt, the first one that is there counts."""


def first_column(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of `names` that the row has, not empty."""
    return next((name for name in names if row.get(name) not in (None, "", [], {})), None)


def read_prompt(row: Mapping[str, Any], on_change: OnChange) -> tuple[Message, ...]:
    """The row's prompt. Raises RowError where there is none, or where it needs no answer."""
    name = first_column(row, PROMPTS)
    if name is None:
        raise RowError(
            "no_prompt", f"no prompt; the columns are {', '.join(map(str, row))}. Name it with fields.prompt"
        )
    if isinstance(row.get("instruction"), str) and name in ("instruction", "input"):
        messages = [*read_history(row), Message("user", instruction_text(row, row))]
    else:
        messages = [*read_history(row), *read_messages(row[name], name, on_change)]
    messages = with_system(messages, row)
    check_prompt(messages)
    return tuple(messages)


def instruction_text(row: Mapping[str, Any], instance: Mapping[str, Any]) -> str:
    """Alpaca's instruction, and the input that it is about after an empty line."""
    instruction, given = row.get("instruction"), instance.get("input", instance.get("context"))
    if not isinstance(instruction, str) or not instruction.strip():
        raise RowError("no_prompt", "`instruction` is empty or not text")
    if given not in (None, "") and not isinstance(given, str):
        raise RowError("not_text", f"`input` is {type(given).__name__}, not text")
    return f"{instruction}\n\n{given}" if given else instruction


def read_history(row: Mapping[str, Any]) -> list[Message]:
    """Alpaca's `history`: earlier (question, answer) pairs."""
    messages = []
    for number, turn in enumerate(row.get("history") or [], 1):
        if (
            not isinstance(turn, list | tuple)
            or len(turn) != 2
            or not all(isinstance(text, str) for text in turn)
        ):
            raise RowError("bad_history", f"history, entry {number}: expected [question, answer]")
        messages += [Message("user", turn[0]), Message("assistant", turn[1])]
    return messages
