"""Polar Express against its published coefficients, and the factor against the singular value decomposition."""

import numpy as np
import pytest
import torch

from groundup.train.optimizers._orthogonal import nearest_to_one, orthogonal, polar_express

PUBLISHED = [
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
]
"""Amsel et al. 2025, listing 1 (smallest singular value 1e-3), before the safety factor."""


def test_the_coefficients_are_the_published_ones() -> None:
    stretch = np.array([1.01, 1.01**3, 1.01**5])
    found = np.array(polar_express(8, 1e-3)[:7]) * stretch
    np.testing.assert_allclose(found, PUBLISHED, rtol=1e-5)


@pytest.mark.parametrize(("low", "high"), [(0.03, 1.0), (0.2, 1.8), (0.9, 1.1)])
def test_no_other_polynomial_comes_nearer_to_one(low: float, high: float) -> None:
    points = np.linspace(low, high, 2001)
    powers = np.stack([points, points**3, points**5])
    best = np.array(nearest_to_one(low, high))
    error = np.abs(best @ powers - 1).max()
    draw = np.random.default_rng(0)
    for size in (1e-1, 1e-2, 1e-3):
        others = best * (1 + size * draw.standard_normal((2000, 3)))
        assert np.abs(others @ powers - 1).max(axis=1).min() >= error - 1e-9


@pytest.mark.parametrize("shape", [(16, 16), (12, 40), (40, 12)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_factor_is_that_of_the_decomposition(shape: tuple[int, int], dtype: torch.dtype) -> None:
    stack = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(stack, full_matrices=False)
    found = orthogonal(stack, polar_express(8, 1e-3), dtype)
    assert found.dtype == dtype and found.shape == stack.shape
    torch.testing.assert_close(found.float(), u @ v, atol=1e-3 if dtype == torch.float32 else 0.05, rtol=0)


def test_a_zero_matrix_stays_zero_and_size_does_not_matter() -> None:
    stack = torch.stack([torch.zeros(4, 6), *[torch.randn(4, 6)] * 2])
    stack[2] *= 1e-6
    found = orthogonal(stack, polar_express(5), torch.float32)
    assert torch.equal(found[0], torch.zeros(4, 6))
    torch.testing.assert_close(found[1], found[2])
