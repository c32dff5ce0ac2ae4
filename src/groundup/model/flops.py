"""Parameter counts and training FLOPs of a decoder.

in:  a DecoderConfig
out: parameters, matrix parameters that a token meets, FLOPs of training per token
"""

import torch

from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder


def parameters(config: DecoderConfig) -> int:
    """All parameters, tied ones once. Counted on a model without memory."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Decoder(config).parameters())


def matmul_parameters(config: DecoderConfig) -> int:
    """Matrix parameters that every token is multiplied with: layers and head, without embeddings and norms.

    Of experts, those that a token uses.
    """
    attention = config.d_model * config.head_dim * 2 * (config.n_heads + config.n_kv_heads)
    matrices = 3 if config.activation == "swiglu" else 2
    feed_forward = matrices * config.d_model * config.d_ff
    if config.moe is not None:
        used = config.moe.n_experts_per_token + config.moe.n_shared_experts
        feed_forward = config.d_model * (used * matrices * config.moe.d_expert + config.moe.n_experts)
    return config.n_layers * (attention + feed_forward) + config.vocab_size * config.d_model


def training_flops_per_token(config: DecoderConfig, seq_len: int) -> float:
    """Floating-point operations of one training step per token, forward and backward.

    6 per matrix parameter (2 forward, 4 backward), and 12 x keys x attention width for attention: two products
    of 2 x width operations per key, times 3 for forward and backward. A position sees half of `seq_len` keys on
    average, since the future isn't looked at (the common figure counts all), and no more than its window.
    Recomputation isn't counted.
    """
    keys = sum(_mean_keys(config.window(layer), seq_len) for layer in range(config.n_layers))
    return 6 * matmul_parameters(config) + 12 * keys * config.n_heads * config.head_dim


def _mean_keys(window: int, seq_len: int) -> float:
    visible = min(window or seq_len, seq_len)
    return visible / 2 if visible == seq_len else visible - visible**2 / (2 * seq_len)
