"""Chat format: conversation to ids and loss mask, for training, rollouts, chat and export.

in:  messages
out: <|begin_of_text|>, then per message its role token, its content and <|end_of_turn|>

Content is encoded without control tokens: a text that spells one stays text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.core.records import Message
from groundup.tokens.tokenizer import Tokenizer
from groundup.tokens.tool_text import result_text


@dataclass(frozen=True)
class RenderedChat:
    """Ids of a conversation.

    The loss mask is true for the content of assistant messages that are in the loss, and for their end-of-turn tokens.
    """

    ids: list[int]
    loss_mask: list[bool]


def render(messages: Sequence[Message], tokenizer: Tokenizer) -> RenderedChat:
    """The ids and loss mask of a whole conversation."""
    roles = {
        "system": tokenizer.system,
        "user": tokenizer.user,
        "assistant": tokenizer.assistant,
        "tool": tokenizer.user,
    }
    ids, loss_mask = [tokenizer.bos], [False]
    for message, content in zip(messages, tokenizer.encode_batch(list(map(_text, messages))), strict=True):
        ids += [roles[message.role], *content, tokenizer.end_of_turn]
        in_loss = message.role == "assistant" and message.in_loss
        loss_mask += [False] + [in_loss] * (len(content) + 1)
    return RenderedChat(ids, loss_mask)


def prompt(messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """The ids of a conversation followed by the generation prompt (the assistant's role token)."""
    return [*render(messages, tokenizer).ids, tokenizer.assistant]


def _text(message: Message) -> str:
    """The content of a message; a tool's result as the user's text."""
    return result_text(message.content, message.name) if message.role == "tool" else message.content
