"""Small configs of every portable architecture, and a decoder whose weights are loud enough to tell tokens apart."""

from dataclasses import replace

import torch

from groundup.model.config import DecoderConfig, MoE, RopeScaling
from groundup.model.decoder import Decoder

CONTEXT = 16
"""Of the first training, in scaled configs: well below max_seq_len."""
QWEN3 = DecoderConfig(
    vocab_size=96, d_model=48, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=12, d_ff=80, max_seq_len=64
)
LLAMA = DecoderConfig(
    vocab_size=96, d_model=48, n_layers=3, n_heads=4, n_kv_heads=4, head_dim=12, d_ff=80,
    qk_norm="none", architecture="llama", tie_embeddings=True, rope_theta=500.0, norm_eps=3e-5, max_seq_len=64,
)  # fmt: skip
OLMO3 = replace(
    QWEN3, architecture="olmo3", norm_at="output", qk_norm="width", n_layers=4, windows=(9, 9, 9, 0)
)
QWEN3_MOE = replace(
    QWEN3, architecture="qwen3_moe", n_layers=2, moe=MoE(n_experts=6, n_experts_per_token=2, d_expert=24)
)
GPT2 = DecoderConfig(
    vocab_size=96, d_model=48, n_layers=3, n_heads=4, n_kv_heads=4, head_dim=12, d_ff=80,
    architecture="gpt2", norm="layer", norm_eps=2e-5, qk_norm="none", positions="learned", activation="gelu",
    biases=True, tie_embeddings=True, max_seq_len=64,
)  # fmt: skip
SCALINGS = {
    "linear": RopeScaling(kind="linear", factor=4),
    "llama3": RopeScaling(kind="llama3", factor=4, original_max_seq_len=CONTEXT, high_freq_factor=3),
    "yarn": RopeScaling(kind="yarn", factor=4, original_max_seq_len=CONTEXT, beta_fast=4, beta_slow=0.5),
    "longrope": RopeScaling(
        kind="longrope", factor=4, original_max_seq_len=CONTEXT,
        short_factor=(1, 1.1, 1.2, 1.3, 1.4, 1.5), long_factor=(1, 1.5, 2, 2.5, 3, 4),
    ),
}  # fmt: skip
PORTABLE = {
    "llama": LLAMA,
    "llama_gqa": replace(LLAMA, n_kv_heads=2, tie_embeddings=False, head_dim=16),
    "llama_mqa": replace(LLAMA, n_kv_heads=1, tie_embeddings=False),
    "llama_linear": replace(LLAMA, rope_scaling=SCALINGS["linear"]),
    "llama_llama3": replace(LLAMA, rope_scaling=SCALINGS["llama3"], n_kv_heads=2),
    "llama_yarn": replace(LLAMA, rope_scaling=SCALINGS["yarn"], tie_embeddings=False),
    "llama_longrope": replace(LLAMA, rope_scaling=SCALINGS["longrope"]),
    "qwen3": QWEN3,
    "qwen3_windows": replace(QWEN3, windows=(0, 7, 7), tie_embeddings=True),
    "olmo3": OLMO3,
    "olmo3_yarn": replace(OLMO3, rope_scaling=SCALINGS["yarn"], rope_theta=700.0, n_kv_heads=4),
    "qwen3_moe": QWEN3_MOE,
    "qwen3_moe_raw": replace(
        QWEN3_MOE,
        moe=MoE(n_experts=5, n_experts_per_token=3, d_expert=20, normalize=False),
        tie_embeddings=True,
    ),
    "olmo2": replace(OLMO3, architecture="olmo2", windows=(), norm_eps=1e-5),
    "mistral": replace(LLAMA, architecture="mistral", n_kv_heads=2, tie_embeddings=False),
    "mistral_windows": replace(LLAMA, architecture="mistral", windows=(9, 9, 9)),
    "qwen2": replace(LLAMA, architecture="qwen2", n_kv_heads=2, biases="qkv"),
    "phi3": replace(LLAMA, architecture="phi3", n_kv_heads=2, tie_embeddings=False),
    "phi3_longrope": replace(LLAMA, architecture="phi3", rope_scaling=SCALINGS["longrope"]),
    "smollm3": replace(LLAMA, architecture="smollm3", n_layers=4, rope_layers=(True, True, True, False)),
    "smollm3_pattern": replace(LLAMA, architecture="smollm3", n_kv_heads=2, rope_layers=(False, True, False)),
    "gpt2": GPT2,
    "gpt2_untied": replace(GPT2, tie_embeddings=False, n_layers=1),
}
"""Everything that published formats carry."""
FAST = {
    "value_embeddings": replace(QWEN3, value_embeddings=True),
    "residual_scalars": replace(QWEN3, residual_scalars=True),
    "embedding_scalars": replace(QWEN3, embedding_scalars=True),
    "logit_softcap": replace(QWEN3, logit_softcap=5.0),
    'activation = "relu2"': replace(QWEN3, activation="relu2"),
    "n_shared_experts": replace(
        QWEN3_MOE, moe=MoE(n_experts=4, n_experts_per_token=2, d_expert=24, n_shared_experts=1)
    ),
    'balance = "bias"': replace(
        QWEN3_MOE, moe=MoE(n_experts=4, n_experts_per_token=2, d_expert=24, balance="bias")
    ),
}
"""By the name under which `unportable` lists them."""


def decoder(config: DecoderConfig, seed: int = 0) -> Decoder:
    model = Decoder(config)
    model.init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed" in name:
                parameter.mul_(20)
            if parameter.dim() < 2 or "value_gate" in name:
                # Ones and zeros would hide a norm or a bias that is left out or applied twice.
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        if not config.tie_embeddings:
            model.lm_head.weight.mul_(10)
        for name, buffer in model.named_buffers():
            if name.endswith("gate.bias"):
                buffer.add_(0.1 * torch.randn(buffer.shape, generator=generator))
    return model
