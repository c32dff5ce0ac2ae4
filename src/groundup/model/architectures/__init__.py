"""The slot of architectures: a part turns a depth into the config of a decoder."""

from groundup.core.recipe import Recipe
from groundup.model.config import DecoderConfig


class Architecture(Recipe):
    """Base of the parts in this folder."""

    def config(self, depth: int, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The decoder of this depth. Raises ValueError where the part's own numbers don't fit it."""
        raise NotImplementedError
