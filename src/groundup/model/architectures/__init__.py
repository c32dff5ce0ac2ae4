"""The slot of architectures: a part turns a depth into the config of a decoder."""

from typing import ClassVar

from pydantic import Field

from groundup.core.recipe import Recipe
from groundup.model import scaling
from groundup.model.config import DecoderConfig


class Architecture(Recipe):
    """Base of the parts in this folder."""

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The decoder of this depth. Raises ValueError where the part's own numbers don't fit it."""
        raise NotImplementedError


class Dense(Architecture):
    """What the parts with one feed-forward per layer have in common: their numbers, each 0 = from depth."""

    qk_norm: ClassVar[bool]

    d_model: int = Field(default=0, ge=0, description="width of the stream; 0 = 64 x depth")
    n_heads: int = Field(default=0, ge=0, description="query heads; 0 = d_model / 64")
    n_kv_heads: int = Field(
        default=0, ge=0, description="key/value heads; 0 = n_heads, or a quarter from 16 up"
    )
    d_ff: int = Field(default=0, ge=0, description="feed-forward width; 0 = 8/3 of d_model")
    tie_embeddings: bool = Field(default=False, description="one matrix for embedding and head")
    rope_theta: float = Field(default=10_000.0, gt=0, description="base of the rotary angles")

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The decoder of this depth; see `model/scaling.py` for the rules."""
        return scaling.shape(
            depth=depth,
            vocab_size=vocab_size,
            max_seq_len=max_seq_len,
            qk_norm=self.qk_norm,
            tie_embeddings=self.tie_embeddings,
            d_model=self.d_model,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            d_ff=self.d_ff,
            rope_theta=self.rope_theta,
        )
