"""Text -> coloured spans: one colour per token, or the loss mask of a conversation.

in:  a tokenizer and a text; or a conversation of examples.json as [[text, in the loss], ...]
out: `ColouredSpan`s that join to the text; no character is split between two of them
"""

from typing import Any

from groundup.book.content import ColouredSpan
from groundup.book.format import clip, visible
from groundup.book.palette import SHADES
from groundup.tokens.tokenizer import Tokenizer


def coloured_tokens(text: str, tokenizer: Tokenizer) -> tuple[ColouredSpan, ...]:
    """The text's tokens in alternating colours; tokens that share a character are joined."""
    spans: list[str] = []
    pending = b""
    for token in tokenizer.encode(text):
        pending += tokenizer.token_bytes(token)
        try:
            spans.append(pending.decode("utf-8"))
        except UnicodeDecodeError:
            continue
        pending = b""
    if pending:
        spans.append(pending.decode("utf-8", "replace"))
    return tuple(ColouredSpan(visible(span), index % len(SHADES) + 1) for index, span in enumerate(spans))


def coloured_loss_mask(example: Any) -> tuple[ColouredSpan, ...]:
    """An entry `[[text, in the loss], ...]` of examples.json, tokens in the loss coloured; () for anything else."""
    if not isinstance(example, list) or not all(
        isinstance(item, list) and len(item) == 2 for item in example
    ):
        return ()
    return tuple(ColouredSpan(clip(str(text)), 1 if in_loss else 0) for text, in_loss in example)
