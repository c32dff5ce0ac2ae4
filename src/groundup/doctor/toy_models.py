"""Small models that show mistakes: loud weights, shapes of every kind, the same numbers in every dtype.

in:  a config, a bench
out: a decoder on the device, its weights in float64, texts of ids and documents
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
MOE_NUMBERS = MoE(n_experts=5, n_experts_per_token=2, d_expert=24, n_shared_experts=1)
MOE = replace(QWEN3, architecture="qwen3_moe", moe=MOE_NUMBERS)
CONFIGS = {"qwen3": QWEN3, "llama": LLAMA, "olmo": OLMO, "gpt2": GPT2, "fast": FAST, "moe": MOE}
"""What every check of a model runs through; each switch of a config is on in one of them."""
SAMPLED = {"qwen3": QWEN3, "fast": FAST}
"""What checks run through that generate token by token, which takes longer."""


def loud(model: nn.Module, seed: int = 0) -> None:
    """Weights that tell tokens, positions and layers apart, and that bf16 holds exactly.

    Fresh weights hide mistakes: their logits are nearly equal, and norms of ones can be left out or applied twice.
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


def dtypes(config: DecoderConfig, bench: CheckContext) -> tuple[torch.dtype, ...]:
    """The bench's. Experts only in fp32: rounding decides a near tie between two of them, and all that follows."""
    return (torch.float32,) if config.moe else bench.dtypes


def decoder(config: DecoderConfig, bench: CheckContext, dtype: torch.dtype = torch.float32) -> Decoder:
    """A decoder with loud weights on the bench's device that computes in `dtype`, in eager mode."""
    model = Decoder(config)
    loud(model)
    model.compute_dtype = dtype
    return model.to(bench.device).eval()


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter in float64 on the CPU, ready to be differentiated."""
    return {name: p.detach().double().cpu().requires_grad_() for name, p in model.named_parameters()}


def texts(rows: int, time: int, seed: int = 0) -> Int[Tensor, "rows time"]:
    """Random ids."""
    return torch.randint(VOCAB, (rows, time), generator=torch.Generator().manual_seed(seed))


def documents(rows: int, time: int) -> Int[Tensor, "rows time"]:
    """Documents of uneven length, one more in every row, and padding (-1) at the end of every row but the first."""
    found = torch.full((rows, time), -1, dtype=torch.int32)
    for row in range(rows):
        real = time - 3 * row
        borders = [0, *sorted({(7 * k + 5 * row) % real for k in range(1, row + 2)} - {0}), real]
        for number, (start, end) in enumerate(pairwise(borders)):
            found[row, start:end] = number
    return found


TALK = (
    ("What does the ball do?", "The ball rolls down the hill three times and then stops."),
    ("What does the cup do?", "The cup stands on the table all day and holds the tea."),
    ("What does the dog do?", "The dog runs after the ball, seven times."),
    ("What does the <|assistant|> egg do?", "The egg, <|end_of_turn|> says nothing at all."),
)
"""Questions and answers; the last ones spell control tokens, which must stay text."""


def tokenizer() -> Tokenizer:
    """A tokenizer of 300 ids or so, learnt from `TALK`."""
    return Tokenizer.from_merges(bpe.train(iter(text for pair in TALK for text in pair), 300))
