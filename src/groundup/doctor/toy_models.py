"""Small models for checks, in every architecture shape, with weights that expose mistakes.

in:  a config, a `CheckContext`
out: a decoder on the device, its weights in float64, random ids and document segments
"""

from dataclasses import replace
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor, nn

from groundup.doctor.check import CheckContext
from groundup.model.config import DecoderConfig, MoE, RopeScaling
from groundup.model.decoder import Decoder
from groundup.tokens import bpe
from groundup.tokens.tokenizer import Tokenizer

VOCAB = 96
QWEN3 = DecoderConfig(
    vocab_size=VOCAB, d_model=64, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=96, max_seq_len=64
)
LLAMA = replace(
    QWEN3, architecture="llama", n_kv_heads=4, head_dim=24, d_ff=112, qk_norm="none", tie_embeddings=True,
    rope_theta=500.0, norm_eps=1e-2,
)  # fmt: skip
OLMO = replace(
    QWEN3, architecture="olmo3", norm_at="output", qk_norm="width", windows=(5, 5, 0),
    rope_scaling=RopeScaling(kind="yarn", factor=4, original_max_seq_len=16, beta_fast=2, beta_slow=0.5),
)  # fmt: skip
GPT2 = replace(
    QWEN3, architecture="gpt2", n_kv_heads=4, norm="layer", norm_eps=1e-5, qk_norm="none", positions="learned",
    activation="gelu", biases=True, tie_embeddings=True,
)  # fmt: skip
FAST = replace(
    QWEN3, activation="relu2", value_embeddings=True, residual_scalars=True, embedding_scalars=True,
    logit_softcap=4.0,
)  # fmt: skip
MOE_CONFIG = MoE(n_experts=5, n_experts_per_token=2, d_expert=24, n_shared_experts=1)
MOE = replace(QWEN3, architecture="qwen3_moe", moe=MOE_CONFIG)
CONFIGS = {"qwen3": QWEN3, "llama": LLAMA, "olmo": OLMO, "gpt2": GPT2, "fast": FAST, "moe": MOE}
"""Configs of the model checks; every switch of `DecoderConfig` is on in one of them."""
GENERATION_CONFIGS = {"qwen3": QWEN3, "fast": FAST}
"""Configs of the checks that generate token by token, which are slower."""


def set_distinct_weights(model: nn.Module, seed: int = 0) -> None:
    """Set weights that distinguish tokens, positions and layers, exactly representable in bf16.

    Initial weights hide mistakes: their logits are nearly equal, and norms of ones can be omitted or applied twice.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() < 2:
                value = 0.3 * noise + (0 if name.endswith("bias") else 1)
            elif "embed" in name:
                value = 0.5 * noise
            elif name.endswith("mlp.gate.weight"):
                value = noise  # a router that is sure of its choice
            else:
                value = noise * parameter.shape[-1] ** -0.5
            parameter.copy_(value.bfloat16())


def dtypes(config: DecoderConfig, context: CheckContext) -> tuple[torch.dtype, ...]:
    """The context's dtypes; fp32 alone for experts, where rounding decides near ties of the router."""
    return (torch.float32,) if config.moe else context.dtypes


def decoder(config: DecoderConfig, context: CheckContext, dtype: torch.dtype = torch.float32) -> Decoder:
    """A decoder with distinct weights on the context's device that computes in `dtype`, in eager mode."""
    model = Decoder(config)
    set_distinct_weights(model)
    model.compute_dtype = dtype
    return model.to(context.device).eval()


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter as a float64 leaf tensor on the CPU."""
    return {name: p.detach().double().cpu().requires_grad_() for name, p in model.named_parameters()}


def random_ids(rows: int, time: int, seed: int = 0) -> Int[Tensor, "rows time"]:
    """Random token ids, a function of `seed`."""
    return torch.randint(VOCAB, (rows, time), generator=torch.Generator().manual_seed(seed))


def document_segments(rows: int, time: int) -> Int[Tensor, "rows time"]:
    """Segments of uneven length: one document more per row, and padding (-1) at the end of all rows but the first."""
    segments = torch.full((rows, time), -1, dtype=torch.int32)
    for row in range(rows):
        real = time - 3 * row
        borders = [0, *sorted({(7 * k + 5 * row) % real for k in range(1, row + 2)} - {0}), real]
        for number, (start, end) in enumerate(pairwise(borders)):
            segments[row, start:end] = number
    return segments


CHATS = (
    ("What does the ball do?", "The ball rolls down the hill three times and then stops."),
    ("What does the cup do?", "The cup stands on the table all day and holds the tea."),
    ("What does the dog do?", "The dog runs after the ball, seven times."),
    ("What does the <|assistant|> egg do?", "The egg, <|end_of_turn|> says nothing at all."),
)
"""Questions and answers; the last pair contains the text of control tokens, which must not be encoded as such."""


def toy_tokenizer() -> Tokenizer:
    """A tokenizer of about 300 ids, trained on `CHATS`."""
    return Tokenizer.from_merges(bpe.train(iter(text for pair in CHATS for text in pair), 300))
