"""The orthogonal factor of matrices by products alone: what Muon steps along.

in:  a stack of matrices [matrices, rows, columns]
out: for each U S V^T of them about U V^T, of the same shape

Polar Express (Amsel et al. 2025, https://arxiv.org/abs/2505.16932): every iteration X <- a X + b (X X^T) X +
c (X X^T)^2 X applies the odd polynomial a s + b s^3 + c s^5 to the singular values s, and the polynomials are the
ones whose composition comes nearest to 1 over all values from `smallest` to 1.
"""

import math
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Coefficients = tuple[tuple[float, float, float], ...]

SMALLEST = 1e-2
"""Singular values below this share of the Frobenius norm aren't lifted all the way: few iterations can't do both."""
SAFETY = 1.01
"""bf16 rounds a singular value past the interval now and then; the polynomials are stretched by so much."""
CUSHION = 0.02407327424182761
"""The paper's bound on how steep a polynomial may get: it never tries to lift less than this share of the largest."""


@cache
def polar_express(iterations: int, smallest: float = SMALLEST) -> Coefficients:
    """(a, b, c) of every iteration, for singular values from `smallest` to 1.

    All but the last are stretched by SAFETY, as in the paper's implementation.
    """
    low, high = smallest, 1.0
    coefficients = []
    for _ in range(iterations):
        a, b, c = nearest_to_one(max(low, CUSHION * high), high)
        # The cushion shifts the polynomial's middle; put the images of both ends at equal distance from 1 again.
        centre = 2 / (_apply((a, b, c), low) + _apply((a, b, c), high))
        polynomial = (centre * a, centre * b, centre * c)
        coefficients.append(polynomial)
        low = _apply(polynomial, low)
        high = 2 - low
    stretched = [(a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in coefficients[:-1]]
    return (*stretched, coefficients[-1])


def nearest_to_one(low: float, high: float) -> tuple[float, float, float]:
    """The a s + b s^3 + c s^5 whose largest distance from 1 over low <= s <= high is smallest.

    Found by Remez' exchange: the error takes its extreme with alternating sign at both ends and two points between.
    """
    if low / high > 1 - 5e-6:  # a point: the limit, which Newton and Schulz used
        return 15 / 8 / high, -10 / 8 / high**3, 3 / 8 / high**5
    inner = ((3 * low + high) / 4, (low + 3 * high) / 4)
    error, before = math.inf, 0.0
    while abs(error - before) > 1e-15:
        before = error
        points = np.array([low, *inner, high])
        signs = np.array([1.0, -1.0, 1.0, -1.0])
        system = np.stack([points, points**3, points**5, signs], axis=1)
        a, b, c, error = (float(value) for value in np.linalg.solve(system, np.ones(4)))
        root = math.sqrt(9 * b * b - 20 * a * c)
        inner = (math.sqrt((-3 * b - root) / (10 * c)), math.sqrt((-3 * b + root) / (10 * c)))
    return a, b, c


def _apply(polynomial: tuple[float, float, float], s: float) -> float:
    a, b, c = polynomial
    return a * s + b * s**3 + c * s**5


def orthogonal(
    stack: Float[Tensor, "matrices rows columns"], coefficients: Coefficients, dtype: torch.dtype
) -> Float[Tensor, "matrices rows columns"]:
    """About U V^T of every matrix, computed and returned in `dtype`. A zero matrix stays zero."""
    tall = stack.shape[-2] > stack.shape[-1]
    x = stack.mT if tall else stack  # X X^T is then the small one of the two
    norm = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True) * SAFETY
    x = x.to(dtype) / norm.clamp(min=1e-30).to(dtype)
    for a, b, c in coefficients:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
