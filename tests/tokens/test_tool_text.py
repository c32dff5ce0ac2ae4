"""Tools, calls and results as text equal what the chat template renders for other runtimes."""

import json
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

from groundup.core.records import Message
from groundup.tokens import bpe
from groundup.tokens.chat import render
from groundup.tokens.chat_template import CHAT_TEMPLATE
from groundup.tokens.tokenizer import Tokenizer
from groundup.tokens.tool_text import calls_text, tools_text

TOOLS = [{"type": "function", "function": {"name": "é", "parameters": {"x": [1, None]}}}, {"name": "g"}]
CALLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "é", "arguments": '{"x": 1}'}},
    {"name": "g", "arguments": {"y": "ü"}},
]


def test_render_gives_the_ids_of_the_templates_text() -> None:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    source = CHAT_TEMPLATE.replace("{%- generation %}", "").replace("{%- endgeneration %}", "")
    text = environment.from_string(source).render(
        bos_token="<|begin_of_text|>",
        tools=TOOLS,
        messages=[
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "Well.", "tool_calls": CALLS},
            {"role": "tool", "name": "é", "content": "3"},
            {"role": "tool", "content": "4"},
            {"role": "assistant", "content": "a"},
        ],
    )
    tokenizer = Tokenizer.from_merges(bpe.train(iter(["some text"]), 270))
    messages = [
        Message("system", tools_text(TOOLS, "Be kind.")),
        Message("user", "q"),
        Message("assistant", f"Well.\n{calls_text(CALLS)}"),
        Message("tool", "3", name="é"),
        Message("tool", "4"),
        Message("assistant", "a", in_loss=False),
    ]
    rendered = render(messages, tokenizer)
    assert tokenizer.decode(rendered.ids, specials=True) == text
    in_loss = [token for token, learned in zip(rendered.ids, rendered.loss_mask, strict=True) if learned]
    assert tokenizer.decode(in_loss, specials=True) == f"Well.\n{calls_text(CALLS)}<|end_of_turn|>"
