"""The Llama shape: as Qwen3, without the norms on queries and keys.

https://arxiv.org/abs/2302.13971
"""

from pydantic import Field

from groundup.model import scaling
from groundup.model.architectures import Architecture
from groundup.model.config import DecoderConfig


class Llama(Architecture):
    """Pre-norm decoder with rotary positions, grouped-query attention and SwiGLU. 0 = from depth."""

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
            qk_norm=False,
            tie_embeddings=self.tie_embeddings,
            d_model=self.d_model,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            d_ff=self.d_ff,
            rope_theta=self.rope_theta,
        )
