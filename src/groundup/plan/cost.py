"""The cost of a pretraining: parameters, FLOPs, and memory per rank.

in:  a decoder's config, training tokens, and how ranks share the model
out: TrainingCost
"""

from dataclasses import dataclass

from groundup.core.runtime import Layout
from groundup.model.config import DecoderConfig
from groundup.model.flops import parameters, training_flops_per_token
from groundup.parallel.memory_estimate import BYTES_PER_PARAMETER, memory_parts


@dataclass(frozen=True)
class TrainingCost:
    """What a pretraining needs."""

    parameters: int
    flops: float
    """of all training steps"""
    state_bytes: int
    """weights, gradients and optimizer state on each rank; activations come on top"""


def training_cost(
    config: DecoderConfig, seq_len: int, tokens: int, layout: Layout, ranks: int
) -> TrainingCost:
    """The cost of training a decoder on `tokens` tokens in packed sequences of `seq_len`."""
    size = parameters(config)
    state = BYTES_PER_PARAMETER * size // memory_parts(layout, ranks).parameters
    return TrainingCost(size, tokens * training_flops_per_token(config, seq_len), state)
