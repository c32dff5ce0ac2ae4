"""How fast rotary angles turn, pair by pair, also stretched for long contexts: part of the reference.

in:  number of pairs, theta, a stretching, the largest position there is
out: each pair's angle per position in float64, and the factor on cosine and sine
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.model.config import RopeScaling

Rates = Float[Tensor, " pairs"]


def stretched(pairs: int, theta: float, scaling: RopeScaling | None, largest: int) -> tuple[Rates, float]:
    """theta^(-i/pairs) of every pair i, or what `scaling` makes of it."""
    plain = [theta ** (-i / pairs) for i in range(pairs)]
    if scaling is None:
        return torch.tensor(plain, dtype=torch.float64), 1.0
    if scaling.kind == "linear":
        found = [rate / scaling.factor for rate in plain]
    elif scaling.kind == "llama3":
        found = [_llama3(rate, scaling) for rate in plain]
    elif scaling.kind == "yarn":
        found = [_yarn(i, rate, pairs, theta, scaling) for i, rate in enumerate(plain)]
    else:
        beyond = largest >= scaling.original_max_seq_len
        divisors = scaling.long_factor if beyond else scaling.short_factor
        found = [rate / divisor for rate, divisor in zip(plain, divisors, strict=True)]
    return torch.tensor(found, dtype=torch.float64), _factor(scaling)


def _llama3(rate: float, scaling: RopeScaling) -> float:
    """By turns within the original context: few are stretched, many stay, between them in proportion (Llama 3.1)."""
    turns = scaling.original_max_seq_len * rate / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = min(1.0, max(0.0, (turns - low) / (high - low)))
    return kept * rate + (1 - kept) * rate / scaling.factor


def _yarn(number: int, rate: float, pairs: int, theta: float, scaling: RopeScaling) -> float:
    """As above, by the pair's number between those with beta_fast and beta_slow turns (arXiv:2309.00071)."""

    def pair_with(turns: float) -> float:
        return pairs * math.log(scaling.original_max_seq_len / (2 * math.pi * turns)) / math.log(theta)

    first, last = pair_with(scaling.beta_fast), pair_with(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    stretch = min(1.0, max(0.0, (number - first) / (last - first)))
    return stretch * rate / scaling.factor + (1 - stretch) * rate


def _factor(scaling: RopeScaling) -> float:
    """On cosine and sine: yarn and longrope keep attention over more keys as sharp as it was."""
    if scaling.kind in ("linear", "llama3"):
        return 1.0
    if scaling.attention_factor:
        return scaling.attention_factor
    if scaling.factor <= 1:
        return 1.0
    if scaling.kind == "yarn":
        return 1 + 0.1 * math.log(scaling.factor)
    return math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_max_seq_len))
