"""Rotary positions: turn pairs of numbers by an angle that grows with the position.

in:  positions (integers), queries or keys
out: the same queries or keys, turned, so that their products depend on distances only

Su et al. 2021, https://arxiv.org/abs/2104.09864. As in Llama and Qwen, number i is paired with number
i + dim/2, not with its neighbour: published weights expect this order.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

Turn = tuple[Float[Tensor, "rows 1 time dim"], Float[Tensor, "rows 1 time dim"]]
"""Cosine and sine of every position's angles, fp32; the 1 stands for the heads."""


def angles(positions: Int[Tensor, "batch time"], dim: int, theta: float) -> Turn:
    """Cosine and sine of every position's angles, fp32; the 1 stands for the heads.

    Pair i turns by position / theta^(2i/dim).
    """
    exponents = torch.arange(0, dim, 2, device=positions.device, dtype=torch.float32) / dim
    turns = positions[:, None, :, None].float() * theta**-exponents
    both = torch.cat((turns, turns), dim=-1)
    return both.cos(), both.sin()


def rotate(
    x: Float[Tensor, "batch heads time dim"],
    cos: Float[Tensor, "rows 1 time dim"],
    sin: Float[Tensor, "rows 1 time dim"],
) -> Float[Tensor, "batch heads time dim"]:
    """Turn every pair (x_i, x_{i+dim/2}) by its angle; computed in fp32, returned in x's dtype."""
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x.float() * cos + turned * sin).to(x.dtype)
