"""Each loss on preferences against a float64 formula written from its paper, values and gradients."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from groundup.align import preference_objectives as objectives

BETA, EPS = 0.3, 0.1
CHOSEN = (-3.1, -0.4, 2.0, 0.0, -25.0)
"""log-ratios of chosen answers"""
REJECTED = (-2.0, -4.0, 2.5, 0.0, 30.0)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))


def log_odds(x: float) -> float:
    return x - math.log(1 - math.exp(x))


Formula = Callable[[float, float], float]
Loss = Callable[[Tensor, Tensor], Tensor]


def on_difference(loss: Callable[..., Tensor], *rest: float) -> Loss:
    return lambda chosen, rejected: loss(chosen - rejected, *rest)


LOG_RATIO_LOSSES: dict[str, tuple[Loss, Formula]] = {
    "dpo": (on_difference(objectives.dpo_sigmoid, BETA), lambda w, r: -log_sigmoid(BETA * (w - r))),
    "cdpo": (
        on_difference(objectives.dpo_sigmoid, BETA, EPS),
        lambda w, r: -(1 - EPS) * log_sigmoid(BETA * (w - r)) - EPS * log_sigmoid(BETA * (r - w)),
    ),
    "robust": (
        on_difference(objectives.dpo_robust, BETA, EPS),
        lambda w, r: (
            (-(1 - EPS) * log_sigmoid(BETA * (w - r)) + EPS * log_sigmoid(BETA * (r - w))) / (1 - 2 * EPS)
        ),
    ),
    "hinge": (on_difference(objectives.dpo_hinge, BETA), lambda w, r: max(0.0, 1 - BETA * (w - r))),
    "ipo": (on_difference(objectives.ipo, BETA), lambda w, r: (w - r - 1 / (2 * BETA)) ** 2),
    "dpop": (
        partial(objectives.dpop, beta=BETA, penalty=5.0),
        lambda w, r: -log_sigmoid(BETA * (w - r - 5.0 * max(0.0, -w))),
    ),
    "apo_zero": (
        partial(objectives.apo_zero, beta=BETA),
        lambda w, r: 1 - sigmoid(BETA * w) + sigmoid(BETA * r),
    ),
    "apo_down": (
        partial(objectives.apo_down, beta=BETA),
        lambda w, r: sigmoid(BETA * w) + 1 - sigmoid(BETA * (w - r)),
    ),
    "cpo": (partial(objectives.cpo, beta=BETA), lambda w, r: -log_sigmoid(BETA * (w - r))),
}
MEAN_LOSSES: dict[str, tuple[Loss, Formula]] = {
    "simpo": (
        partial(objectives.simpo, beta=2.0, target_margin=0.5),
        lambda w, r: -log_sigmoid(2.0 * (w - r) - 0.5),
    ),
    "orpo": (
        partial(objectives.orpo, odds_coef=0.25),
        lambda w, r: -w - 0.25 * log_sigmoid(log_odds(w) - log_odds(r)),
    ),
}


def assert_equals(loss: Loss, formula: Formula, chosen: list[float], rejected: list[float]) -> None:
    """Values and both gradients (central differences of the formula), in float64."""
    w = torch.tensor(chosen, dtype=torch.float64, requires_grad=True)
    r = torch.tensor(rejected, dtype=torch.float64, requires_grad=True)
    values = loss(w, r)
    gradients = torch.autograd.grad(values.sum(), (w, r))
    step = 1e-5
    for i, (a, b) in enumerate(zip(chosen, rejected, strict=True)):
        assert values[i].item() == pytest.approx(formula(a, b), rel=1e-9, abs=1e-12)
        slopes = (
            (formula(a + step, b) - formula(a - step, b)) / (2 * step),
            (formula(a, b + step) - formula(a, b - step)) / (2 * step),
        )
        for gradient, slope in zip(gradients, slopes, strict=True):
            assert gradient[i].item() == pytest.approx(slope, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", LOG_RATIO_LOSSES)
def test_losses_on_log_ratios_are_those_of_their_papers(name: str) -> None:
    # dpop has a kink at a chosen log-ratio of 0, where a central difference is no gradient.
    pairs = [(w, r) for w, r in zip(CHOSEN, REJECTED, strict=True) if name != "dpop" or w != 0]
    assert_equals(*LOG_RATIO_LOSSES[name], [w for w, _ in pairs], [r for _, r in pairs])


@pytest.mark.parametrize("name", MEAN_LOSSES)
def test_losses_on_means_per_token_are_those_of_their_papers(name: str) -> None:
    assert_equals(*MEAN_LOSSES[name], [-0.1, -2.0, -0.7, -8.0], [-0.3, -0.01, -0.7, -0.05])


@pytest.mark.parametrize("reference_point", [0.0, 0.8])
def test_kto_is_the_value_function_of_its_paper(reference_point: float) -> None:
    log_ratios = torch.tensor([-3.0, 0.5, 2.0, -0.2], dtype=torch.float64, requires_grad=True)
    desirable = torch.tensor([True, False, True, False])
    losses = objectives.kto(log_ratios, desirable, reference_point, BETA, (1.0, 1.3))
    (gradients,) = torch.autograd.grad(losses.sum(), log_ratios)
    for h, good, loss, gradient in zip(
        log_ratios.tolist(), desirable.tolist(), losses.tolist(), gradients.tolist(), strict=True
    ):
        value = sigmoid(BETA * (h - reference_point)) if good else sigmoid(BETA * (reference_point - h))
        weight = 1.0 if good else 1.3
        slope = weight * BETA * value * (1 - value) * (-1 if good else 1)
        assert loss == pytest.approx(weight * (1 - value), rel=1e-12)
        assert gradient == pytest.approx(slope, rel=1e-9)


def test_ktos_reference_point_is_of_all_answers_never_below_zero_and_has_no_gradient() -> None:
    mismatched = torch.tensor([0.5, 1.0, -0.3], requires_grad=True)
    assert objectives.kto_reference_point(mismatched) == pytest.approx(0.4)
    assert objectives.kto_reference_point(-mismatched) == 0.0


def test_unpaired_apo_zero_of_a_pair_is_apo_zero() -> None:
    chosen, rejected = torch.tensor(CHOSEN), torch.tensor(REJECTED)
    both = torch.cat([chosen, rejected])
    labels = torch.tensor([True] * len(CHOSEN) + [False] * len(REJECTED))
    parts = objectives.kto(both, labels, 0.0, BETA).view(2, -1).sum(dim=0)
    assert torch.allclose(parts, objectives.apo_zero(chosen, rejected, BETA), atol=1e-6)


@pytest.mark.parametrize("name", ["dpo", "cdpo", "robust", "hinge", "ipo", "cpo"])
def test_a_pair_with_chosen_equal_to_rejected_has_no_gradient_on_their_common_weights(name: str) -> None:
    """Such pairs are dropped before training; the loss itself moves nothing either."""
    shared = torch.tensor([0.7, -1.2], requires_grad=True)
    LOG_RATIO_LOSSES[name][0](shared, shared).sum().backward()
    assert shared.grad is not None
    assert torch.allclose(shared.grad, torch.zeros(2), atol=1e-7)


def test_an_answer_without_a_scored_token_has_mean_zero_and_a_finite_gradient() -> None:
    """The trap of a fully truncated completion: 0 / 0."""
    sums = torch.tensor([0.0, -6.0], requires_grad=True)
    means = objectives.mean_per_token(sums, torch.tensor([0.0, 3.0]))
    objectives.orpo(means, torch.tensor([-1.0, -1.0]), 0.5).sum().backward()
    assert means.tolist() == [0.0, -2.0]
    assert sums.grad is not None
    assert torch.isfinite(sums.grad).all()
    assert sums.grad[0] == 0


def test_extreme_log_ratios_give_finite_losses_and_gradients() -> None:
    for loss, _ in LOG_RATIO_LOSSES.values():
        chosen = torch.tensor([-1e4, 1e4], requires_grad=True)
        loss(chosen, torch.tensor([1e4, -1e4])).sum().backward()
        assert chosen.grad is not None
        assert torch.isfinite(chosen.grad).all()


def test_orpo_of_a_certain_answer_is_finite() -> None:
    chosen = torch.tensor([0.0, -1e-9], requires_grad=True)
    loss = objectives.orpo(chosen, torch.tensor([-1.0, -1.0]), 0.5).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert chosen.grad is not None
    assert torch.isfinite(chosen.grad).all()
