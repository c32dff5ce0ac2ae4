"""Dataset `conversations`: what the assistant should have answered, from the user's files.

in:  rows in one of the layouts below, recognised by their keys or named by `format`
out: conversations whose last message is the assistant's

- messages: `messages` or `conversations`, OpenAI's or ShareGPT's, with `system`, `tools`, tool calls and results
- alpaca: `instruction`, `input`, `output`, perhaps `system` and `history`; self-instruct's `instances`
- completion: `prompt` and `completion`; the same as `question` and `answer`, `input` and `output`, ...
- oasst: a tree of messages under `prompt`, with `replies`; the best-ranked reply of each message is followed
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from groundup.align.data.chat_messages import RowError, check_turns, read_answer, read_messages, with_system
from groundup.align.data.file_rows import FileDataset, RowContext
from groundup.align.data.rows_of_prompts import PROMPTS, first_column, instruction_text, read_history
from groundup.core.records import Conversation, Message, Record
from groundup.evaluate.alignment_data import RecordKind

ANSWERS = ("completion", "response", "output", "answer")
LISTS = ("messages", "conversations", "conversation")
Reader = Callable[[Mapping[str, Any], RowContext], list[list[Message]]]


class Conversations(FileDataset):
    """Your own conversations: chat logs, instructions with answers, trees of messages."""

    provides: ClassVar[frozenset[RecordKind]] = frozenset({"conversations", "prompts"})

    def row_records(self, row: Mapping[str, Any], context: RowContext) -> list[Record]:
        """See `FileDataset`."""
        layout = self.format or recognised(row)
        if layout not in LAYOUTS:
            raise RowError("unknown_format", f"format = {layout!r} is none of {', '.join(LAYOUTS)}")
        read = LAYOUTS[layout](row, context)
        return [
            Conversation(
                id=context.place + (f".{number}" if number else ""),
                kind=layout,
                source=context.source,
                messages=tuple(_ending_with_an_answer(with_system(messages, row), context)),
            )
            for number, messages in enumerate(read)
        ]


def recognised(row: Mapping[str, Any]) -> str:
    """The layout of a row by its keys. Raises RowError for none."""
    if any(isinstance(row.get(name), list | dict) for name in LISTS):
        return "messages"
    if isinstance(row.get("prompt"), Mapping) and "replies" in row["prompt"]:
        return "oasst"
    if "instruction" in row:
        return "alpaca"
    if first_column(row, PROMPTS) and first_column(row, ANSWERS):
        return "completion"
    raise RowError(
        "unknown_format",
        f"no known layout of conversations; the columns are {', '.join(map(str, row))}. Name them with fields, e.g. "
        'fields = { prompt = "...", completion = "..." }',
    )


def _messages(row: Mapping[str, Any], context: RowContext) -> list[list[Message]]:
    name = first_column(row, LISTS) or "messages"
    return [read_messages(row.get(name), name, context.on_change)]


def _alpaca(row: Mapping[str, Any], context: RowContext) -> list[list[Message]]:
    instances = row.get("instances") if isinstance(row.get("instances"), list) else [row]
    assert isinstance(instances, list)
    read = []
    for number, instance in enumerate(instances, 1):
        where = f"instance {number}: " if len(instances) > 1 else ""
        if not isinstance(instance, Mapping):
            raise RowError("not_an_object", f"{where}expected a JSON object, got {type(instance).__name__}")
        question = instruction_text(row, instance)
        name = first_column(instance, ANSWERS) or "output"
        answer = read_answer(instance.get(name) or "", name, context.on_change)
        read.append([*read_history(row), Message("user", question), *answer])
    return read


def _completion(row: Mapping[str, Any], context: RowContext) -> list[list[Message]]:
    prompt_name, name = first_column(row, PROMPTS), first_column(row, ANSWERS)
    if prompt_name is None or name is None:
        missing = "prompt" if prompt_name is None else "completion"
        raise RowError(
            "no_prompt" if prompt_name is None else "no_answer", f"`{missing}` is missing or empty"
        )
    prompt = read_messages(row[prompt_name], prompt_name, context.on_change)
    return [[*read_history(row), *prompt, *read_answer(row[name], name, context.on_change)]]


def _oasst(row: Mapping[str, Any], context: RowContext) -> list[list[Message]]:
    """The path from the root along the best-ranked replies."""
    path, node = [], row.get("prompt")
    while isinstance(node, Mapping):
        path.append({"role": node.get("role"), "content": node.get("text")})
        replies = [reply for reply in node.get("replies") or () if not reply.get("deleted")]
        node = min(
            replies, key=lambda reply: reply["rank"] if reply.get("rank") is not None else 1e9, default=None
        )
    return [read_messages(path, "path", context.on_change)]


LAYOUTS: dict[str, Reader] = {
    "messages": _messages,
    "alpaca": _alpaca,
    "completion": _completion,
    "oasst": _oasst,
}


def _ending_with_an_answer(messages: list[Message], context: RowContext) -> list[Message]:
    """The messages up to the assistant's last one. Raises RowError where there is none, or none in the loss."""
    answers = [number for number, message in enumerate(messages) if message.role == "assistant"]
    if not answers:
        raise RowError("no_answer", "no assistant message")
    left_out = len(messages) - answers[-1] - 1
    if left_out:
        context.on_change("unanswered_left_out", f"{left_out} messages after the last answer are left out")
    kept = messages[: answers[-1] + 1]
    check_turns(kept)
    if not any(message.in_loss for message in kept if message.role == "assistant"):
        raise RowError("nothing_in_loss", "every assistant message has weight 0")
    return kept
