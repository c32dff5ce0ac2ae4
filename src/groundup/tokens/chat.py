"""Chat format: conversation to ids and loss mask, for training, rollouts, chat and export.

in:  messages
out: <|begin_of_text|>, then per message its role token, its content and <|end_of_turn|>

Content is encoded without control tokens: a text that spells one stays text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.core.records import Message
from groundup.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class RenderedChat:
    """Ids of a conversation; the loss mask is true for assistant content and its end-of-turn token."""

    ids: list[int]
    loss_mask: list[bool]


def render(messages: Sequence[Message], tokenizer: Tokenizer) -> RenderedChat:
    """The ids and loss mask of a whole conversation."""
    roles = {"system": tokenizer.system, "user": tokenizer.user, "assistant": tokenizer.assistant}
    ids, loss_mask = [tokenizer.bos], [False]
    for message, content in zip(messages, tokenizer.encode_batch([m.content for m in messages]), strict=True):
        ids += [roles[message.role], *content, tokenizer.end_of_turn]
        loss_mask += [False] + [message.role == "assistant"] * (len(content) + 1)
    return RenderedChat(ids, loss_mask)


def prompt(messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """The ids of a conversation followed by the generation prompt (the assistant's role token)."""
    return [*render(messages, tokenizer).ids, tokenizer.assistant]
