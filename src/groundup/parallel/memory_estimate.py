"""Memory estimate: how many tokens of a micro-batch fit a rank's memory.

in:  a decoder's config, the activation checkpointing, a rank's memory, and over how many ranks the model is split
out: tokens; an upper bound on memory, so a lower bound on tokens

`simulate.py` counts every tensor of a step; this formula is what the choice of micro-batch and layout uses at start.
"""

from dataclasses import dataclass

from groundup.core.runtime import ActivationCheckpointing, Layout
from groundup.model.config import DecoderConfig
from groundup.model.flops import parameters

BYTES_PER_PARAMETER = 20
"""Weight, gradient and two optimizer moments in fp32, a copy in the compute dtype, and the optimizer's temporaries."""
BYTES_PER_NUMBER = 4
"""Of an activation in fp32. bf16 takes half; the rest covers temporaries of attention and loss."""
GATHERED_BYTES_PER_PARAMETER = 12
"""Of the layer being computed under FSDP2: that layer and the prefetched next one in the compute dtype, and its
gradient in fp32 before and after reduce-scatter."""


@dataclass(frozen=True)
class MemoryParts:
    """Over how many ranks a model's memory is split."""

    parameters: int = 1
    """weights, gradients, optimizer state"""
    activations: int = 1
    """activations and gathered weights: the size of the axis `tensor`"""


UNSPLIT = MemoryParts()


def memory_parts(layout: Layout, ranks: int) -> MemoryParts:
    """How `layout` splits a model's memory over `ranks`."""
    return MemoryParts(ranks // layout.replicate, layout.tensor)


def tokens_that_fit(
    config: DecoderConfig, checkpointing: ActivationCheckpointing, memory: int, parts: MemoryParts = UNSPLIT
) -> int:
    """Tokens of the largest micro-batch whose training step needs at most `memory` bytes on a rank; at least 0.

    A lower bound: counts every tensor that an eager layer keeps for its backward pass, in fp32. The first rank of a
    pipeline needs the same: it has fewer layers and more micro-batches in flight.
    """
    size = parameters(config)
    available = memory - BYTES_PER_PARAMETER * size // parts.parameters
    if parts.parameters > parts.activations:
        embedding = config.vocab_size * config.d_model
        layer = max(0, size - 2 * embedding) // config.n_layers
        available -= GATHERED_BYTES_PER_PARAMETER * (layer + embedding) // parts.activations
    whole, kept = _numbers_per_token(config, "none"), _numbers_per_token(config, checkpointing)
    # A layer that is recomputed holds all of its activations at that moment.
    recomputed = whole if checkpointing != "none" else 0
    numbers = config.n_layers * kept + recomputed + 4 * config.d_model
    return max(0, available * parts.activations // (BYTES_PER_NUMBER * numbers))


def _numbers_per_token(config: DecoderConfig, checkpointing: ActivationCheckpointing) -> int:
    """Numbers that a layer keeps per token for its backward pass."""
    width = config.d_model
    queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    moe = config.moe
    hidden = config.d_ff if moe is None else moe.d_expert * (moe.n_experts_per_token + moe.n_shared_experts)
    return {
        "none": 7 * width + 7 * queries + 6 * keys + 4 * hidden,
        "selective": 3 * width + 2 * queries + 2 * keys + 2 * hidden,
        "full": width,
    }[checkpointing]
