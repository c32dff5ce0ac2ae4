"""Messages as people store them -> our messages.

in:  OpenAI's `role`/`content` (text or parts, tool calls, tool results), ShareGPT's `from`/`value`, transcripts
     ("Human: ... Assistant: ..."), plain text
out: messages with four roles; or a RowError that says which message is wrong and why

A tool's definition and a call become text (see tokens/tool_text.py). `weight`, `train`, `learn` and `loss_mask` of a
message say whether it is in the loss.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from groundup.core.records import Message, Role
from groundup.tokens.tool_text import calls_text, tools_text

OnChange = Callable[[str, str], None]
ROLES: dict[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
    "function_call": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "function_response": "tool", "ipython": "tool",
}  # fmt: skip
_SPEAKER = re.compile(r"\n\n(Human|Assistant): ?")
_IN_LOSS = ("weight", "train", "learn", "loss_mask")
_CALL_PARTS = ("tool_call", "tool_calls", "function_call")


class RowError(Exception):
    """A row that can't be used. `reason` is counted; the text says what is wrong."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def read_messages(value: Any, name: str, on_change: OnChange) -> list[Message]:
    """The messages of a column: text, one message, or a list of messages."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list) or not value:
        kind = "empty" if value in (None, []) else type(value).__name__
        raise RowError("no_messages", f"`{name}` is {kind}; expected a list of messages")
    messages: list[Message] = []
    for number, item in enumerate(value, 1):
        message = _message(item, f"{name}, message {number}", on_change)
        if message.content.strip():
            messages.append(message)
        elif message.role != "system":
            raise RowError("empty_message", f"{name}, message {number} ({message.role}) is empty")
    return messages


def read_answer(value: Any, name: str, on_change: OnChange) -> tuple[Message, ...]:
    """A response: text, or messages of which the last is the assistant's."""
    if isinstance(value, str):
        if not value.strip():
            raise RowError("empty_answer", f"`{name}` is empty")
        return (Message("assistant", value),)
    if value in (None, []):
        raise RowError("empty_answer", f"`{name}` is empty")
    if not isinstance(value, list | Mapping):
        raise RowError("not_text", f"`{name}` is {type(value).__name__}, not text or messages")
    messages = tuple(read_messages(value, name, on_change))
    if not messages or messages[-1].role != "assistant":
        raise RowError("no_answer", f"`{name}` does not end with an assistant message")
    return messages


def read_transcript(text: str, name: str) -> list[Message]:
    """A transcript in which every turn begins with `Human: ` or `Assistant: ` after an empty line."""
    parts = _SPEAKER.split(text if text.startswith("\n\n") else f"\n\n{text}")
    if len(parts) < 3 or parts[0].strip():
        raise RowError(
            "no_prompt",
            f"`{name}` is text without a prompt: add a column `prompt`, or name it with fields.prompt",
        )
    messages = []
    for number, (speaker, content) in enumerate(zip(parts[1::2], parts[2::2], strict=True), 1):
        if not content.strip():
            raise RowError("empty_message", f"{name}, turn {number} ({speaker}) is empty")
        messages.append(Message("user" if speaker == "Human" else "assistant", content))
    return messages


def with_system(messages: Sequence[Message], row: Mapping[str, Any]) -> list[Message]:
    """The messages after the row's own `system` text and tools. Raises RowError for a system message elsewhere."""
    system, rest = row.get("system"), list(messages)
    own = system if isinstance(system, str) and system.strip() else ""
    if rest and rest[0].role == "system":
        own = f"{own}\n\n{rest[0].content}" if own and own != rest[0].content else rest[0].content
        rest = rest[1:]
    for number, message in enumerate(rest, 1):
        if message.role == "system":
            raise RowError(
                "system_not_first",
                f"a system message stands after {number - 1} others; only the first can be",
            )
    tools = _tools(row.get("tools"))
    if tools:
        own = tools_text(tools, own)
    return [Message("system", own), *rest] if own else rest


def check_turns(messages: Sequence[Message], name: str = "messages") -> None:
    """Raise RowError for two assistant messages in a row, and where nothing precedes an answer."""
    for number, (first, second) in enumerate(pairwise(messages), 1):
        if first.role == second.role == "assistant":
            raise RowError(
                "two_assistant_messages", f"{name} {number} and {number + 1} are both the assistant's"
            )
    if not any(message.role == "user" for message in messages):
        raise RowError("no_user_message", f"`{name}` has no user message")


def check_prompt(messages: Sequence[Message]) -> None:
    """Raise RowError for a prompt that can't be answered."""
    check_turns(messages, "prompt")
    if messages[-1].role == "assistant":
        raise RowError(
            "prompt_ends_with_assistant",
            "the prompt ends with an assistant message: nothing is left to answer",
        )


def _message(item: Any, where: str, on_change: OnChange) -> Message:
    if not isinstance(item, Mapping):
        raise RowError(
            "not_a_message", f"{where} is {type(item).__name__}, not an object with role and content"
        )
    speaker = item.get("role", item.get("from", item.get("speaker")))
    role = ROLES.get(str(speaker).lower())
    if role is None:
        known = ", ".join(sorted(set(ROLES)))
        raise RowError("unknown_role", f"{where} has the role {speaker!r}. Known: {known}")
    content = next((item[key] for key in ("content", "value", "text") if item.get(key) is not None), "")
    text = _content(content, where, on_change)
    if str(speaker).lower() == "function_call":
        text = _calls(_json(text, where), where)
    if item.get("tool_calls"):
        text = "\n".join(part for part in (text, _calls(item["tool_calls"], where)) if part)
    flags = [item[key] for key in _IN_LOSS if item.get(key) is not None]
    return Message(role, text, all(map(bool, flags)), str(item.get("name") or "") if role == "tool" else "")


def _content(content: Any, where: str, on_change: OnChange) -> str:
    """The text of a message: a string, or a list of parts. Reasoning is left out; other kinds are refused."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RowError("not_text", f"{where}: the content is {type(content).__name__}, not text")
    texts, calls = [], []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        text = part.get("text", part.get("value")) if isinstance(part, Mapping) else part
        if kind in ("reasoning", "thinking"):
            on_change("reasoning_left_out", f"{where}: the reasoning is left out")
        elif kind in _CALL_PARTS:
            calls.append(_calls(_json(text, where) if isinstance(text, str) else text, where))
        elif kind in ("text", "tool_result") and isinstance(text, str):
            texts.append(text)
        else:
            raise RowError("not_text", f"{where} has a part of type {kind!r}: only text can be trained on")
    return "\n".join(filter(None, ["".join(texts), *calls]))


def _calls(value: Any, where: str) -> str:
    try:
        return calls_text(value if isinstance(value, list) else [value])
    except (KeyError, TypeError, AttributeError):
        raise RowError("bad_tool_call", f"{where}: a tool call without a name") from None


def _tools(value: Any) -> list[Any]:
    """The tools of a row: a list, or its JSON text."""
    if isinstance(value, str) and value.strip():
        value = _json(value, "`tools`")
    if value in (None, "", []):
        return []
    if not isinstance(value, list):
        raise RowError("bad_tools", f"`tools` is {type(value).__name__}, not a list")
    return value


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise RowError("bad_tools", f"{where}: expected JSON, got {text[:40]!r}") from None
