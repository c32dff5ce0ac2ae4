"""Less memory for more arithmetic: a layer's inner results are computed again when the backward pass needs them.

in:  a decoder, and how much to compute again
out: the same decoder with the same gradients, whose layers keep less between forward and backward

Chen et al. 2016, https://arxiv.org/abs/1604.06174; choosing by operation as in Korthikanti et al. 2022,
https://arxiv.org/abs/2205.05198: results of large matrix products are dear to compute and cheap to keep.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from groundup.core.runtime import ActivationCheckpointing
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.flops import parameters
from groundup.model.layers import Layer

aten = torch.ops.aten
KEPT = frozenset(
    {
        aten.mm.default,
        aten.addmm.default,
        aten._scaled_mm.default,
        aten._grouped_mm.default,
        aten._scaled_dot_product_flash_attention.default,
        aten._scaled_dot_product_flash_attention_for_cpu.default,
        aten._scaled_dot_product_efficient_attention.default,
        aten._scaled_dot_product_cudnn_attention.default,
        torch.ops.higher_order.flex_attention,
    }
)
"""What `selective` keeps: products with weights and the outcome of fused attention. Attention written as plain
products (bmm) isn't here: its scores grow with the square of the length."""


class FullyRecomputed(Layer):
    """Keeps nothing but its input."""

    def forward(self, *args: Any) -> Any:
        if not torch.is_grad_enabled():
            return super().forward(*args)
        return checkpoint(super().forward, *args, use_reentrant=False, preserve_rng_state=False)


class SelectivelyRecomputed(Layer):
    """Keeps its input and the results in `KEPT`."""

    def forward(self, *args: Any) -> Any:
        if not torch.is_grad_enabled():
            return super().forward(*args)
        return checkpoint(
            super().forward,
            *args,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=partial(create_selective_checkpoint_contexts, _policy),
        )


KINDS: dict[ActivationCheckpointing, type[Layer]] = {
    "none": Layer,
    "selective": SelectivelyRecomputed,
    "full": FullyRecomputed,
}


def checkpoint_activations(model: Decoder, how: ActivationCheckpointing) -> None:
    """Set how much of every layer is computed again. Before compiling; names of parameters stay."""
    for layer in model.model.layers:
        # Another class for the same object: a wrapping module would rename every parameter.
        layer.__class__ = KINDS[how]


def _policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in KEPT else CheckpointPolicy.PREFER_RECOMPUTE


BYTES_PER_PARAMETER = 20
"""Weight, gradient and two moments in fp32, a copy in the compute dtype, and room for the optimizer's products."""
BYTES_PER_NUMBER = 4
"""Of an activation. In bf16 half of it, which the larger tensors inside the attention and the loss may need."""


GATHERED = 12
"""Bytes per parameter of the layer at work where ranks share parameters: the layer and the one after it in the compute
dtype, and its gradient in fp32 before and after it is cut."""


@dataclass(frozen=True)
class MemoryParts:
    """In how many parts ranks share a model."""

    parameters: int = 1
    """weights, gradients, the optimizer's memory"""
    between: int = 1
    """what lies between matrices, and the matrices while they are at work: the ranks of tensor parallel"""


WHOLE = MemoryParts()


def tokens_that_fit(
    config: DecoderConfig, how: ActivationCheckpointing, memory: int, parts: MemoryParts = WHOLE
) -> int:
    """Tokens of a micro-batch whose training step needs at most `memory` bytes on a rank; at least 0.

    An estimate from above: every tensor that an eager layer keeps for its backward pass, in fp32. A pipeline's first
    rank keeps as much: it has fewer layers and more micro-batches.
    """
    size = parameters(config)
    left = memory - BYTES_PER_PARAMETER * size // parts.parameters
    if parts.parameters > parts.between:
        ends = config.vocab_size * config.d_model
        left -= GATHERED * (max(0, size - 2 * ends) // config.n_layers + ends) // parts.between
    whole, kept = _numbers_per_token(config, "none"), _numbers_per_token(config, how)
    # While a layer is recomputed, all it would have kept exists too.
    numbers = config.n_layers * kept + (whole if how != "none" else 0) + 4 * config.d_model
    return max(0, left * parts.between // (BYTES_PER_NUMBER * numbers))


def _numbers_per_token(config: DecoderConfig, how: ActivationCheckpointing) -> int:
    """Numbers that a layer keeps of every token."""
    width, queries, keys = (
        config.d_model,
        config.n_heads * config.head_dim,
        config.n_kv_heads * config.head_dim,
    )
    moe = config.moe
    fed = config.d_ff if moe is None else moe.d_expert * (moe.n_experts_per_token + moe.n_shared_experts)
    return {
        "none": 7 * width + 7 * queries + 6 * keys + 4 * fed,
        "selective": 3 * width + 2 * queries + 2 * keys + 2 * fed,
        "full": width,
    }[how]
