"""Tools, calls and results as plain text of the existing roles, as the chat template writes them.

in:  JSON schemas of tools, calls, the result of a call
out: text of a system message, an assistant message, a user message
"""

import json
from collections.abc import Sequence
from typing import Any


def tools_text(tools: Sequence[Any], system: str = "") -> str:
    """The system message that describes `tools`, after the conversation's own system message."""
    head = f"{system}\n\n" if system else ""
    schemas = "".join(f"\n{_json(tool)}" for tool in tools)
    return (
        f"{head}You can call these functions, given as JSON schemas:{schemas}\n"
        'To call one, answer only with {"name": its name, "arguments": an object}.'
    )


def calls_text(calls: Sequence[Any]) -> str:
    """Calls as the assistant writes them, one per line. Raises KeyError or TypeError for a call without a name."""
    lines = []
    for call in calls:
        function = call.get("function") or call
        arguments = function.get("arguments", "{}")
        text = arguments if isinstance(arguments, str) else _json(arguments)
        lines.append(f'{{"name": {_json(function["name"])}, "arguments": {text}}}')
    return "\n".join(lines)


def result_text(content: str, name: str = "") -> str:
    """The result of a call, as the user's message."""
    return f"Result{f' of {name}' if name else ''}:\n{content}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
