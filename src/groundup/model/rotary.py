"""Rotary position embedding (RoPE) and its scaling to longer contexts.

in:  positions (integers), queries or keys
out: the same queries or keys with every pair of channels rotated, so that dot products depend on distances only

Su et al. 2021, https://arxiv.org/abs/2104.09864. As in Llama and Qwen, number i is paired with number
i + dim/2, not with its neighbour: published weights expect this order. A `RopeScaling` lowers the
frequencies for contexts longer than the trained one (RoPE scaling); the formulas are those of transformers, down to
their rounding.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.model.config import RopeScaling

CosSin = tuple[Float[Tensor, "rows 1 time pairs"], Float[Tensor, "rows 1 time pairs"]]
"""Cosine and sine of every position's angles, one per pair of numbers, fp32; the 1 stands for the heads."""
PerPair = Float[Tensor, " pairs"]


def rope_cos_sin(
    positions: Int[Tensor, "batch time"], dim: int, theta: float, scaling: RopeScaling | None = None
) -> CosSin:
    """Cosine and sine of every position's angles.

    Pair i turns by position / theta^(2i/dim), or by what `scaling` makes of that.
    """
    frequencies = rope_frequencies(dim, theta, scaling, positions)
    rotations = positions[:, None, :, None].float() * frequencies
    if scaling is None:
        return rotations.cos(), rotations.sin()
    factor = attention_factor(scaling)
    return rotations.cos() * factor, rotations.sin() * factor


def rope_frequencies(
    dim: int,
    theta: float,
    scaling: RopeScaling | None = None,
    positions: Int[Tensor, "batch time"] | None = None,
) -> PerPair:
    """Radians per position of every pair. positions: longrope chooses its factors by the largest; none = short ones."""
    device = None if positions is None else positions.device
    exponents = torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim
    periods = theta**exponents
    if scaling is None:
        return 1.0 / periods
    return scaled_frequencies(periods, theta, scaling, torch.zeros(1, 1) if positions is None else positions)


def apply_rope(
    x: Float[Tensor, "batch heads time dim"],
    cos: Float[Tensor, "rows 1 time pairs"],
    sin: Float[Tensor, "rows 1 time pairs"],
) -> Float[Tensor, "batch heads time dim"]:
    """Rotate every pair (x_i, x_{i+dim/2}) by its angle; in fp32, returned in x's dtype."""
    first, second = x.float().chunk(2, dim=-1)
    # Each half is rounded before they are joined: compiled, it is then written to its place at once.
    rotated = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat([half.to(x.dtype) for half in rotated], dim=-1)


def scaled_frequencies(
    periods: PerPair, theta: float, scaling: RopeScaling, positions: Int[Tensor, "batch time"]
) -> PerPair:
    """Scaled frequencies of all pairs. periods: 1 / the unscaled frequencies."""
    if scaling.kind == "linear":
        return 1.0 / periods / scaling.factor  # Chen et al. 2023, https://arxiv.org/abs/2306.15595
    if scaling.kind == "llama3":
        return _llama3(1.0 / periods, scaling)
    if scaling.kind == "yarn":
        return _yarn(periods, theta, scaling)
    return _longrope(periods, scaling, positions)


def attention_factor(scaling: RopeScaling) -> float:
    """Factor on cosine and sine that keeps attention over longer contexts equally sharp.

    yarn: 0.1 ln(factor) + 1; longrope: sqrt(1 + ln(factor) / ln(original context)); otherwise 1.
    """
    if scaling.kind not in ("yarn", "longrope"):
        return 1.0
    if scaling.attention_factor or scaling.factor <= 1:
        return scaling.attention_factor or 1.0
    if scaling.kind == "yarn":
        return 0.1 * math.log(scaling.factor) + 1.0
    return math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_max_seq_len))


def _llama3(frequencies: PerPair, scaling: RopeScaling) -> PerPair:
    """Llama 3.1 (https://arxiv.org/abs/2407.21783): slow pairs are stretched, fast ones stay, a ramp between.

    Slow and fast are turns within the original context.
    """
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    wavelengths = 2 * math.pi / frequencies
    kept = (scaling.original_max_seq_len / wavelengths - low) / (high - low)
    between = (1 - kept) * frequencies / scaling.factor + kept * frequencies
    slow = wavelengths > scaling.original_max_seq_len / low
    fast = wavelengths < scaling.original_max_seq_len / high
    return torch.where(slow, frequencies / scaling.factor, torch.where(fast, frequencies, between))


def _yarn(periods: PerPair, theta: float, scaling: RopeScaling) -> PerPair:
    """YaRN (Peng et al. 2023, https://arxiv.org/abs/2309.00071): as above, the ramp linear in the pair's number."""
    dim = 2 * len(periods)

    def pair(turns: float) -> float:
        """The pair that makes so many turns within the original context."""
        return dim * math.log(scaling.original_max_seq_len / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    last = last if last != first else last + 0.001
    numbers = torch.arange(len(periods), dtype=torch.float32, device=periods.device)
    kept = 1 - ((numbers - first) / (last - first)).clamp(0, 1)
    return 1.0 / (scaling.factor * periods) * (1 - kept) + 1.0 / periods * kept


def _longrope(periods: PerPair, scaling: RopeScaling, positions: Int[Tensor, "batch time"]) -> PerPair:
    """LongRoPE (Ding et al. 2024, https://arxiv.org/abs/2402.13753): a searched divisor for every pair.

    Which of both sets is decided by the largest position present, on the device. A generation that outgrows the
    original context goes on with long ones over keys that were turned by short ones, as in transformers.
    """
    short, long = (
        torch.tensor(factors).to(periods.device, non_blocking=True)
        for factors in (scaling.short_factor, scaling.long_factor)
    )
    beyond = positions.max() >= scaling.original_max_seq_len
    return 1.0 / (torch.where(beyond, long, short) * periods)
