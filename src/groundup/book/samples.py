"""Texts -> coloured pieces: cut into tokens, or with the mask of what is learnt.

in:  a tokenizer and a text; or a conversation as fine-tuning left it, in pieces that are learnt or only read
out: `Piece`s that join to the text, no character split between two of them
"""

from typing import Any

from groundup.book.content import Piece
from groundup.book.format import clip, visible
from groundup.book.palette import SHADES
from groundup.tokens.tokenizer import Tokenizer


def token_pieces(text: str, tokenizer: Tokenizer) -> tuple[Piece, ...]:
    """The text's tokens in turning colours; tokens that share a character are joined."""
    spans: list[str] = []
    waiting = b""
    for token in tokenizer.encode(text):
        waiting += tokenizer.token_bytes(token)
        try:
            spans.append(waiting.decode("utf-8"))
        except UnicodeDecodeError:
            continue
        waiting = b""
    if waiting:
        spans.append(waiting.decode("utf-8", "replace"))
    return tuple(Piece(visible(span), index % len(SHADES) + 1) for index, span in enumerate(spans))


def lesson_pieces(said: Any) -> tuple[Piece, ...]:
    """A conversation from examples.json, `[[text, learnt], ...]`; what is learnt is coloured. Else nothing."""
    if not isinstance(said, list) or not all(isinstance(item, list) and len(item) == 2 for item in said):
        return ()
    return tuple(Piece(clip(str(text)), 1 if learnt else 0) for text, learnt in said)
