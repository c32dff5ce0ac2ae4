"""Each objective against a plain float64 loop written from its paper's formula; and padding, poisoned."""

import math
import random

import pytest
import torch
from torch import Tensor

from groundup.align.objectives import (
    bradley_terry,
    gae,
    kl_k1,
    kl_k3,
    ppo_policy_loss,
    token_rewards,
    value_loss,
    whiten,
)

LENGTHS = (5, 3, 1, 7)
TIME = 7


@pytest.fixture
def mask() -> Tensor:
    return torch.arange(TIME)[None, :] < torch.tensor(LENGTHS)[:, None]


def draw(seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(len(LENGTHS), TIME, generator=torch.Generator().manual_seed(seed)) * scale


def rows(x: Tensor) -> list[list[float]]:
    """The unpadded rows as plain floats."""
    return [row[:n] for row, n in zip(x.double().tolist(), LENGTHS, strict=True)]


def poisoned(x: Tensor, mask: Tensor, poison: float) -> Tensor:
    return torch.where(mask, x, torch.tensor(poison)).requires_grad_()


@pytest.mark.parametrize("margin", [0.0, 0.7])
def test_bradley_terry_is_the_negative_log_probability_that_the_chosen_wins(margin: float) -> None:
    random.seed(0)
    pairs = [(random.gauss(0, 3), random.gauss(0, 3)) for _ in range(50)] + [(40.0, -40.0), (-40.0, 40.0)]
    found = bradley_terry(torch.tensor([a for a, _ in pairs]), torch.tensor([b for _, b in pairs]), margin)
    for (a, b), loss in zip(pairs, found.tolist(), strict=True):
        wins = math.exp(a - margin) / (math.exp(a - margin) + math.exp(b))
        assert loss == pytest.approx(-math.log(wins), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (1.0, 0.95), (0.9, 0.7), (0.9, 0.0)])
def test_gae_is_the_discounted_sum_of_residuals(mask: Tensor, gamma: float, lam: float) -> None:
    rewards, values = draw(1), draw(2)
    found = gae(rewards, values, mask, gamma, lam)
    for i, (r, v) in enumerate(zip(rows(rewards), rows(values), strict=True)):
        after = [*v[1:], 0.0]
        residuals = [r[t] + gamma * after[t] - v[t] for t in range(len(r))]
        for t in range(len(r)):
            wanted = sum((gamma * lam) ** k * residuals[t + k] for k in range(len(r) - t))
            assert found.advantages[i, t].item() == pytest.approx(wanted, abs=1e-5)
            assert found.returns[i, t].item() == pytest.approx(wanted + v[t], abs=1e-5)
        assert found.advantages[i, len(r) :].tolist() == [0.0] * (TIME - len(r))


def test_gae_with_lambda_one_gives_the_return_less_the_value(mask: Tensor) -> None:
    rewards, values = draw(3), draw(4)
    found = gae(rewards, values, mask, gamma=1.0, lam=1.0)
    for i, r in enumerate(rows(rewards)):
        assert found.returns[i, 0].item() == pytest.approx(sum(r), abs=1e-5)


def test_the_policy_loss_is_the_papers_clipped_surrogate(mask: Tensor) -> None:
    new, old, advantages, clip = draw(5, 0.3), draw(6, 0.3), draw(7), 0.2
    found = ppo_policy_loss(new, old, advantages, mask, clip, total=16.0)
    wanted, clipped = 0.0, 0
    for n, o, a in zip(rows(new), rows(old), rows(advantages), strict=True):
        for log_new, log_old, gain in zip(n, o, a, strict=True):
            ratio = math.exp(log_new - log_old)
            bounded = min(max(ratio, 1 - clip), 1 + clip)
            wanted -= min(ratio * gain, bounded * gain)
            clipped += bounded * gain < ratio * gain
    assert found.loss.item() == pytest.approx(wanted / 16, abs=1e-6)
    assert found.clipped.item() == pytest.approx(clipped / 16, abs=1e-6)
    assert 0 < clipped < 16


def test_the_policy_gradient_at_the_old_policy_is_that_of_the_plain_surrogate(mask: Tensor) -> None:
    new, advantages = draw(5).requires_grad_(), draw(7)
    ppo_policy_loss(new, new.detach(), advantages, mask, 0.2, total=1.0).loss.backward()
    assert new.grad is not None
    assert torch.allclose(new.grad, -advantages * mask, atol=1e-6)


def test_the_value_loss_is_the_larger_of_the_free_and_the_held_error(mask: Tensor) -> None:
    new, old, returns, clip = draw(8), draw(9), draw(10), 0.2
    found = value_loss(new, old, returns, mask, clip, total=16.0)
    wanted = 0.0
    for n, o, r in zip(rows(new), rows(old), rows(returns), strict=True):
        for value, before, target in zip(n, o, r, strict=True):
            held = before + min(max(value - before, -clip), clip)
            wanted += 0.5 * max((value - target) ** 2, (held - target) ** 2)
    assert found.loss.item() == pytest.approx(wanted / 16, rel=1e-5)


def test_both_kl_estimators_meet_the_true_divergence() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.3, 0.5]).double()
    true = sum(a * math.log(a / b) for a, b in zip(p.tolist(), q.tolist(), strict=True))
    log_ratios = (p / q).log()
    assert (p * kl_k1(log_ratios)).sum().item() == pytest.approx(true, abs=1e-6)
    assert (p * kl_k3(log_ratios)).sum().item() == pytest.approx(true, abs=1e-6)
    assert (kl_k3(torch.linspace(-3, 3, 101)) >= 0).all()


def test_the_score_is_paid_on_the_last_token_and_the_penalty_on_each(mask: Tensor) -> None:
    scores, log_ratios = torch.tensor([1.0, -2.0, 3.0, 0.5]), draw(11)
    found = token_rewards(scores, log_ratios, mask, kl_coef=0.1)
    for i, ratios in enumerate(rows(log_ratios)):
        wanted = [-0.1 * ratio for ratio in ratios]
        wanted[-1] += scores[i].item()
        assert found[i, : len(ratios)].tolist() == pytest.approx(wanted, abs=1e-6)
        assert not found[i, len(ratios) :].any()


def test_whitened_advantages_have_mean_0_and_variance_1_over_real_tokens(mask: Tensor) -> None:
    found = whiten(draw(12) * 5 + 3, mask)
    kept = found[mask].double()
    assert kept.mean().item() == pytest.approx(0, abs=1e-6)
    assert kept.var(unbiased=False).item() == pytest.approx(1, abs=1e-5)
    assert not found[~mask].any()


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e30])
def test_padding_reaches_neither_value_nor_gradient(mask: Tensor, poison: float) -> None:
    def everything(fill: float) -> tuple[Tensor, list[Tensor]]:
        inputs = [poisoned(draw(seed), mask, fill) for seed in range(20, 25)]
        new, old, values, returns, rewards = inputs
        estimate = gae(rewards, values, mask, 0.99, 0.95)
        policy = ppo_policy_loss(new, old, whiten(estimate.advantages, mask), mask, 0.2, total=16.0)
        value = value_loss(values, old, returns, mask, 0.2, total=16.0)
        paid = token_rewards(torch.ones(len(LENGTHS)), new, mask, 0.1).sum()
        total = policy.loss + value.loss + estimate.returns.sum() + paid
        total.backward()
        return total.detach(), [x.grad for x in inputs if x.grad is not None]

    clean, clean_gradients = everything(0.0)
    found, gradients = everything(poison)
    assert torch.equal(found, clean)
    assert len(gradients) == 5
    for gradient, wanted in zip(gradients, clean_gradients, strict=True):
        assert torch.equal(gradient, wanted)
        assert not gradient[~mask].any()
