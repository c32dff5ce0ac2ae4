"""Reference RoPE frequencies, with the scalings for long contexts.

in:  number of pairs, theta, a scaling, the largest position
out: each pair's angle per position in float64, and the factor on cosine and sine
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.model.config import RopeScaling

Frequencies = Float[Tensor, " pairs"]


def scaled_frequencies(
    pairs: int, theta: float, scaling: RopeScaling | None, largest: int
) -> tuple[Frequencies, float]:
    """theta^(-i/pairs) of every pair i, scaled as `scaling` says."""
    plain = [theta ** (-i / pairs) for i in range(pairs)]
    if scaling is None:
        return torch.tensor(plain, dtype=torch.float64), 1.0
    if scaling.kind == "linear":
        scaled = [frequency / scaling.factor for frequency in plain]
    elif scaling.kind == "llama3":
        scaled = [_llama3(frequency, scaling) for frequency in plain]
    elif scaling.kind == "yarn":
        scaled = [_yarn(i, frequency, pairs, theta, scaling) for i, frequency in enumerate(plain)]
    else:
        beyond = largest >= scaling.original_max_seq_len
        divisors = scaling.long_factor if beyond else scaling.short_factor
        scaled = [frequency / divisor for frequency, divisor in zip(plain, divisors, strict=True)]
    return torch.tensor(scaled, dtype=torch.float64), _factor(scaling)


def _llama3(frequency: float, scaling: RopeScaling) -> float:
    """Llama 3.1: scale pairs with few rotations in the original context, keep those with many, interpolate between."""
    turns = scaling.original_max_seq_len * frequency / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = min(1.0, max(0.0, (turns - low) / (high - low)))
    return kept * frequency + (1 - kept) * frequency / scaling.factor


def _yarn(number: int, frequency: float, pairs: int, theta: float, scaling: RopeScaling) -> float:
    """YaRN: interpolate by pair index between those with beta_fast and beta_slow rotations (arXiv:2309.00071)."""

    def pair_with(turns: float) -> float:
        return pairs * math.log(scaling.original_max_seq_len / (2 * math.pi * turns)) / math.log(theta)

    first, last = pair_with(scaling.beta_fast), pair_with(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    stretch = min(1.0, max(0.0, (number - first) / (last - first)))
    return stretch * frequency / scaling.factor + (1 - stretch) * frequency


def _factor(scaling: RopeScaling) -> float:
    """The factor on cosine and sine: yarn and longrope keep the entropy of attention over more keys."""
    if scaling.kind in ("linear", "llama3"):
        return 1.0
    if scaling.attention_factor:
        return scaling.attention_factor
    if scaling.factor <= 1:
        return 1.0
    if scaling.kind == "yarn":
        return 1 + 0.1 * math.log(scaling.factor)
    return math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_max_seq_len))
