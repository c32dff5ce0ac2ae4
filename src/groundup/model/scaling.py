"""One dial: from depth follow width, heads, feed-forward, learning rate, batch and horizon.

in:  a depth, or the config that followed from it (`architectures/`)
out: the other numbers, each by a rule written here
"""

import math

from groundup.model.config import DecoderConfig
from groundup.model.counts import matmul_parameters

TOKENS_PER_PARAMETER = 20
"""Hoffmann et al. 2022, https://arxiv.org/abs/2203.15556: about 20 tokens per parameter is compute-optimal."""


def horizon_tokens(config: DecoderConfig) -> int:
    """Training tokens where the recipe names none: 20 per parameter of the layers (without embedding and head)."""
    return TOKENS_PER_PARAMETER * (matmul_parameters(config) - config.vocab_size * config.d_model)


def batch_tokens(depth: int) -> int:
    """Tokens per optimizer step where the recipe names none: 512 x depth^2, to the nearest power of two.

    A larger model is trained for longer, and the useful batch grows with both (McCandlish et al. 2018,
    https://arxiv.org/abs/1812.06162).
    """
    return int(2 ** round(math.log2(512 * depth**2)))
