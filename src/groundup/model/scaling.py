"""One dial: from depth follow width, heads, feed-forward, learning rate, batch and horizon.

in:  depth (number of layers)
out: the other numbers, each by a rule written here; parameter and FLOP counts of any config

The rules keep the proportions of published dense models: 64 numbers of width per layer, heads of 64.
"""

import math

from groundup.model.config import DecoderConfig

HEAD_DIM = 64
WIDTH_PER_LAYER = 64
TOKENS_PER_PARAMETER = 20
"""Hoffmann et al. 2022, https://arxiv.org/abs/2203.15556: about 20 tokens per parameter is compute-optimal."""


def shape(
    *,
    depth: int,
    vocab_size: int,
    max_seq_len: int,
    qk_norm: bool,
    tie_embeddings: bool,
    d_model: int = 0,
    n_heads: int = 0,
    n_kv_heads: int = 0,
    d_ff: int = 0,
    rope_theta: float = 10_000.0,
) -> DecoderConfig:
    """The decoder of a depth; 0 means "by the rule".

    width 64 x depth; heads of 64 numbers; one key/value head per query head below 16 heads, then one per 4;
    feed-forward 8/3 of the width, rounded up to a multiple of 64.
    Raises ValueError naming both numbers where heads and width don't fit.
    """
    width = d_model or WIDTH_PER_LAYER * depth
    heads = n_heads or max(1, width // HEAD_DIM)
    if width % heads:
        raise ValueError(
            f"n_heads = {heads} does not divide d_model = {width}: every head gets the same share of the width. "
            f"Try n_heads = {_nearest_divisor(width, heads)}, or a d_model that is a multiple of {heads}"
        )
    kv_heads = n_kv_heads or (heads // 4 if heads >= 16 and heads % 4 == 0 else heads)
    return DecoderConfig(
        vocab_size=vocab_size,
        d_model=width,
        n_layers=depth,
        n_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=width // heads,
        d_ff=d_ff or -(-width * 8 // 3 // 64) * 64,
        rope_theta=rope_theta,
        qk_norm=qk_norm,
        tie_embeddings=tie_embeddings,
        max_seq_len=max_seq_len,
    )


def _nearest_divisor(width: int, heads: int) -> int:
    divisors = [n for n in range(1, width + 1) if width % n == 0 and width // n % 2 == 0]
    return min(divisors or [1], key=lambda n: abs(n - heads))


def matmul_parameters(config: DecoderConfig) -> int:
    """Parameters that every token is multiplied with: layers and head, without embedding and norms."""
    attention = config.d_model * config.head_dim * 2 * (config.n_heads + config.n_kv_heads)
    feed_forward = 3 * config.d_model * config.d_ff
    return config.n_layers * (attention + feed_forward) + config.vocab_size * config.d_model


def parameters(config: DecoderConfig) -> int:
    """All parameters, tied ones once."""
    norms = (2 * config.n_layers + 1) * config.d_model
    norms += 2 * config.n_layers * config.head_dim if config.qk_norm else 0
    embedding = 0 if config.tie_embeddings else config.vocab_size * config.d_model
    return matmul_parameters(config) + norms + embedding


def training_flops_per_token(config: DecoderConfig, seq_len: int) -> float:
    """Floating-point operations of one training step per token, forward and backward.

    6 per matrix parameter (2 forward, 4 backward), and 6 x layers x seq_len x attention width for attention:
    two products of 2 x width operations per key, seq_len / 2 keys on average since the future isn't looked at
    (the common figure 12 counts it), times 3 for forward and backward. Recomputation isn't counted.
    """
    attention = 6 * config.n_layers * seq_len * config.n_heads * config.head_dim
    return 6 * matmul_parameters(config) + attention


def horizon_tokens(config: DecoderConfig) -> int:
    """Training tokens where the recipe names none: 20 per parameter of the layers (without embedding and head)."""
    return TOKENS_PER_PARAMETER * (matmul_parameters(config) - config.vocab_size * config.d_model)


def batch_tokens(depth: int) -> int:
    """Tokens per optimizer step where the recipe names none: 512 x depth^2, to the nearest power of two.

    A larger model is trained for longer, and the useful batch grows with both (McCandlish et al. 2018,
    https://arxiv.org/abs/1812.06162).
    """
    return int(2 ** round(math.log2(512 * depth**2)))
