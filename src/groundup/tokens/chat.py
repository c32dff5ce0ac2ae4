"""Chat format: conversation to ids and loss mask, for training, rollouts, chat and export.

in:  messages
out: <|begin_of_text|>, then per message its role token, its content and <|end_of_turn|>

Content is encoded without control tokens: a text that spells one stays text. An imported chat model has its own
chat template.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from groundup.core.records import Message
from groundup.tokens.imported import RenderedPart
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
    if tokenizer.imported is not None:
        return _with_generation_prompt(_imported(messages, tokenizer), messages, tokenizer)
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
    if tokenizer.imported is not None:
        return _imported(messages, tokenizer, generation_prompt=True).ids
    return [*render(messages, tokenizer).ids, tokenizer.assistant]


def _text(message: Message) -> str:
    """The content of a message; a tool's result as the user's text."""
    return result_text(message.content, message.name) if message.role == "tool" else message.content


def _imported(
    messages: Sequence[Message], tokenizer: Tokenizer, generation_prompt: bool = False
) -> RenderedChat:
    """A conversation in the template of an imported tokenizer: the ids that transformers gives.

    Texts between control tokens are encoded whole; a token is in the loss if its last byte is.
    """
    assert tokenizer.imported is not None
    ids: list[int] = []
    loss_mask: list[bool] = []
    text, byte_mask = "", b""
    end = RenderedPart(in_loss=False, token=tokenizer.eos)
    for piece in [*tokenizer.imported.parts(messages, generation_prompt), end]:
        if piece.token is None:
            part = unicodedata.normalize("NFC", piece.text) if tokenizer.is_normalized else piece.text
            text, byte_mask = text + part, byte_mask + bytes([piece.in_loss]) * len(_utf8(part))
            continue
        encoded = tokenizer.encode(text) if text else []
        ends = accumulate(len(tokenizer.token_bytes(token)) for token in encoded)
        loss_mask += [bool(byte_mask[end - 1]) for end in ends]
        ids, loss_mask = [*ids, *encoded, piece.token], [*loss_mask, piece.in_loss]
        text, byte_mask = "", b""
    return RenderedChat(ids[:-1], loss_mask[:-1])


def _with_generation_prompt(
    rendered: RenderedChat, messages: Sequence[Message], tokenizer: Tokenizer
) -> RenderedChat:
    """The same with all tokens of the last answer in the loss that follow the generation prompt.

    Templates may write more than the content there, e.g. an empty part for reasoning.
    """
    if messages[-1].role != "assistant" or not messages[-1].in_loss:
        return rendered
    start = len(before := prompt(messages[:-1], tokenizer))
    if rendered.ids[:start] != before or True not in rendered.loss_mask[start:]:
        return rendered
    first = rendered.loss_mask.index(True, start)
    mask = [in_loss or start <= at < first for at, in_loss in enumerate(rendered.loss_mask)]
    return RenderedChat(rendered.ids, mask)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")
