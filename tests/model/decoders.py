"""Small configs of both architectures, and a decoder whose weights are loud enough to tell tokens apart."""

import torch

from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder

QWEN3 = DecoderConfig(
    vocab_size=96, d_model=48, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=12, d_ff=80, max_seq_len=64
)
LLAMA = DecoderConfig(
    vocab_size=96, d_model=48, n_layers=3, n_heads=4, n_kv_heads=4, head_dim=12, d_ff=80,
    qk_norm="none", architecture="llama", tie_embeddings=True, rope_theta=500.0, max_seq_len=64,
)  # fmt: skip
BOTH = {"qwen3": QWEN3, "llama": LLAMA}


def decoder(config: DecoderConfig, seed: int = 0) -> Decoder:
    model = Decoder(config)
    model.init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(20)
        model.head_weight.mul_(1 if config.tie_embeddings else 10)
        for name, parameter in model.named_parameters():
            if "norm" in name:  # ones would hide a norm that is left out or applied twice
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model
