"""Conversation -> ids, and which of them are to be learnt. One format for training, rollouts, chat and export.

in:  messages
out: <|begin_of_text|> then per message: its role's token, its content, <|end_of_turn|>

Content is encoded on its own, without control tokens, so a text that spells one stays text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.core.records import Message
from groundup.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class RenderedChat:
    """Ids of a conversation; `learn` is true for the assistant's content and the mark that ends it."""

    ids: list[int]
    loss_mask: list[bool]


def render(messages: Sequence[Message], tokenizer: Tokenizer) -> RenderedChat:
    """A whole conversation."""
    roles = {"system": tokenizer.system, "user": tokenizer.user, "assistant": tokenizer.assistant}
    ids, learn = [tokenizer.bos], [False]
    for message, content in zip(messages, tokenizer.encode_batch([m.content for m in messages]), strict=True):
        ids += [roles[message.role], *content, tokenizer.end_of_turn]
        learn += [False] + [message.role == "assistant"] * (len(content) + 1)
    return RenderedChat(ids, learn)


def prompt(messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """A conversation so far, ending with the assistant's role: what to continue."""
    return [*render(messages, tokenizer).ids, tokenizer.assistant]
