"""Group advantages, surrogates and weights against float64 formulas written from their papers, values and gradients."""

import math
import statistics

import pytest
import torch
from torch import Tensor

from groundup.align.group_objectives import (
    KlEstimator,
    clipped_surrogate,
    clipped_weight,
    equal_groups,
    group_advantages,
    kl_penalty,
    log_ratios,
    overlong_penalty,
    sampler_weights,
    token_weights,
)

LENGTHS = (5, 2, 7, 1, 6, 3)
TIME = 7
LONGEST = 10
ADVANTAGES = (1.2, -0.7, 0.3, -2.0, 0.9, 0.4)
MASK = torch.arange(TIME)[None, :] < torch.tensor(LENGTHS)[:, None]


def draw(seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(LENGTHS), TIME, generator=generator, dtype=torch.float64) * scale


def log_probs() -> tuple[Tensor, Tensor]:
    """Of the policy, with gradient, and of the old policy: ratios on both sides of the clip range."""
    new = -draw(0).abs()
    return new.requires_grad_(), new.detach() + draw(1, 0.4)


def wide(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None].expand(-1, TIME)


def assert_gradient(loss: Tensor, leaf: Tensor, expected: dict[tuple[int, int], float]) -> None:
    (gradient,) = torch.autograd.grad(loss, leaf)
    for i, length in enumerate(LENGTHS):
        for t in range(TIME):
            wanted = expected[i, t] if t < length else 0.0
            assert gradient[i, t].item() == pytest.approx(wanted, rel=1e-9, abs=1e-12), (i, t)


def cells() -> list[tuple[int, int]]:
    return [(i, t) for i, length in enumerate(LENGTHS) for t in range(length)]


def test_group_advantages_are_those_of_grpo_dr_grpo_and_rloo() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.5, 0.25], [0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    for row, grpo, dr_grpo, rloo in zip(
        rewards.tolist(),
        group_advantages(rewards, "std").tolist(),
        group_advantages(rewards, "none").tolist(),
        group_advantages(rewards, "leave_one_out").tolist(),
        strict=True,
    ):
        mean, std = statistics.mean(row), statistics.stdev(row)
        assert grpo == pytest.approx([(r - mean) / (std + 1e-4) for r in row])
        assert dr_grpo == pytest.approx([r - mean for r in row])
        others = [[s for j, s in enumerate(row) if j != i] for i in range(len(row))]
        assert rloo == pytest.approx([r - statistics.mean(o) for r, o in zip(row, others, strict=True)])


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3])
def test_one_group_of_equal_rewards_has_advantages_of_exactly_zero(value: float) -> None:
    """The mean of three times 0.1 is not 0.1 in fp32, and the standard deviation that divides the rest is 0."""
    rewards = torch.full((1, 3), value)
    for normalisation in ("std", "none", "leave_one_out"):
        assert group_advantages(rewards, normalisation).tolist() == [[0.0] * 3]
    assert equal_groups(torch.tensor([[1.0, 1.0], [1.0, 0.0]])).tolist() == [True, False]


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28)])
def test_the_token_surrogate_is_clipped_above_and_below_as_in_dapo(low: float, high: float) -> None:
    new, old = log_probs()
    ratios = torch.exp(log_ratios(new, old, MASK, "token"))
    loss = (clipped_surrogate(ratios, wide(ADVANTAGES), low, high) * MASK).sum()
    total, slopes, clipped = 0.0, {}, 0
    for i, t in cells():
        ratio, advantage = math.exp(new[i, t].item() - old[i, t].item()), ADVANTAGES[i]
        bounded = min(max(ratio, 1 - low), 1 + high)
        total -= min(ratio * advantage, bounded * advantage)
        active = bounded * advantage < ratio * advantage
        slopes[i, t] = 0.0 if active else -ratio * advantage
        clipped += active
    assert loss.item() == pytest.approx(total, rel=1e-12)
    assert_gradient(loss, new, slopes)
    assert 0 < clipped < len(cells())


def test_gspo_clips_the_length_normalised_ratio_of_the_whole_response() -> None:
    new, old = log_probs()
    ratios = torch.exp(log_ratios(new, old, MASK, "sequence"))
    weights = token_weights(MASK, "response_mean", LONGEST).double()
    loss = (clipped_surrogate(ratios, wide(ADVANTAGES), 0.1, 0.1) * weights).sum()
    total, slopes = 0.0, {}
    for i, length in enumerate(LENGTHS):
        log_ratio = sum(new[i, t].item() - old[i, t].item() for t in range(length)) / length
        ratio, advantage = math.exp(log_ratio), ADVANTAGES[i]
        bounded = min(max(ratio, 0.9), 1.1)
        total -= min(ratio * advantage, bounded * advantage) / len(LENGTHS)
        active = bounded * advantage < ratio * advantage
        slopes |= {
            (i, t): 0.0 if active else -ratio * advantage / length / len(LENGTHS) for t in range(length)
        }
    assert loss.item() == pytest.approx(total, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, new)
    for (i, t), slope in slopes.items():
        assert gradient[i, t].item() == pytest.approx(slope, rel=1e-6, abs=1e-12)


def test_cispo_gives_every_token_the_gradient_of_its_log_probability_with_a_clipped_weight() -> None:
    new, old = log_probs()
    ratios = torch.exp(log_ratios(new, old, MASK, "token"))
    loss = (clipped_weight(new, ratios, wide(ADVANTAGES), 1.0, 0.28) * MASK).sum()
    slopes = {
        (i, t): -min(math.exp(new[i, t].item() - old[i, t].item()), 1.28) * ADVANTAGES[i] for i, t in cells()
    }
    total = sum(slope * new[i, t].item() for (i, t), slope in slopes.items())
    assert loss.item() == pytest.approx(total, rel=1e-12)
    assert_gradient(loss, new, slopes)


def test_weights_are_the_means_of_grpo_dapo_and_dr_grpo() -> None:
    tokens = sum(LENGTHS)
    for name, expected in {
        "response_mean": [1 / n / len(LENGTHS) for n in LENGTHS],
        "token_mean": [1 / tokens] * len(LENGTHS),
        "constant": [1 / (len(LENGTHS) * LONGEST)] * len(LENGTHS),
    }.items():
        weights = token_weights(MASK, name, LONGEST)  # type: ignore[arg-type]
        assert weights[:, 0].tolist() == pytest.approx(expected)
        assert (weights * ~MASK).sum() == 0


@pytest.mark.parametrize("aggregation", ["response_mean", "token_mean", "constant"])
def test_truncated_responses_leave_the_denominator_too(aggregation: str) -> None:
    """A filtered response changes nothing in the others' loss: its row is as if it had not been sampled."""
    filtered = MASK.clone()
    filtered[[1, 4]] = False
    kept = [0, 2, 3, 5]
    weights = token_weights(filtered, aggregation, LONGEST)  # type: ignore[arg-type]
    assert torch.equal(weights[kept], token_weights(MASK[kept], aggregation, LONGEST))  # type: ignore[arg-type]
    assert weights[[1, 4]].sum() == 0


@pytest.mark.parametrize("aggregation", ["response_mean", "token_mean", "constant"])
def test_a_step_of_filtered_responses_alone_has_weight_zero(aggregation: str) -> None:
    weights = token_weights(torch.zeros(3, 4, dtype=torch.bool), aggregation, LONGEST)  # type: ignore[arg-type]
    assert weights.tolist() == [[0.0] * 4] * 3


def test_accumulated_micro_batches_add_up_to_the_whole_step() -> None:
    """The trap of accumulation: a mean of the micro-batches' means is another loss."""
    new, old = log_probs()
    ratios = torch.exp(log_ratios(new.detach(), old, MASK, "token"))
    token_losses = clipped_surrogate(ratios, wide(ADVANTAGES), 0.2, 0.2)
    weights = token_weights(MASK, "token_mean", LONGEST)
    whole = (token_losses * weights).sum()
    parts = sum((token_losses[rows] * weights[rows]).sum() for rows in ([0, 1], [2], [3, 4, 5]))
    means = [(token_losses[rows] * MASK[rows]).sum() / MASK[rows].sum() for rows in ([0, 1], [2], [3, 4, 5])]
    assert float(parts) == pytest.approx(float(whole), rel=1e-12)
    assert abs(float(sum(means)) / 3 - float(whole)) > 1e-3


@pytest.mark.parametrize("estimator", ["k2", "weighted_k3", "k3"])
def test_two_estimators_have_the_gradient_of_kl_and_k3_that_of_the_reverse(estimator: KlEstimator) -> None:
    """The expected gradient over a distribution of three tokens, against the derivative of the exact divergence."""
    logits = torch.tensor([0.3, -0.5, 0.9], dtype=torch.float64, requires_grad=True)
    reference = torch.log_softmax(torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64), 0)
    policy = torch.log_softmax(logits, 0)
    old = policy.detach()
    ratios = torch.exp(policy - old)
    expected = (old.exp() * kl_penalty(policy, reference, ratios, estimator)).sum()
    (gradient,) = torch.autograd.grad(expected, logits, retain_graph=True)
    forward = (policy.exp() * (policy - reference)).sum()
    reverse = (reference.exp() * (reference - policy)).sum()
    (wanted,) = torch.autograd.grad(reverse if estimator == "k3" else forward, logits)
    assert torch.allclose(gradient, wanted, atol=1e-12)


def test_kl_penalties_are_schulmans_estimators() -> None:
    d = torch.tensor([[0.4, -1.1, 0.0]], dtype=torch.float64)
    ratios, zero = torch.tensor([[1.5, 0.5, 1.0]], dtype=torch.float64), torch.zeros_like(d)
    k3 = [math.exp(-x) - 1 + x for x in d[0].tolist()]
    assert kl_penalty(d, zero, ratios, "k2")[0].tolist() == pytest.approx([x * x / 2 for x in d[0].tolist()])
    assert kl_penalty(d, zero, ratios, "k3")[0].tolist() == pytest.approx(k3)
    weighted = [r * k for r, k in zip(ratios[0].tolist(), k3, strict=True)]
    assert kl_penalty(d, zero, ratios, "weighted_k3")[0].tolist() == pytest.approx(weighted)


def test_sampler_weights_are_the_capped_ratio_of_trainer_and_sampler() -> None:
    trainer, sampler = log_probs()
    trainer = trainer.detach()
    tokens, sequences = (
        sampler_weights(trainer, sampler, MASK, 2.0, r)  # type: ignore[arg-type]
        for r in ("token", "sequence")
    )
    for i, length in enumerate(LENGTHS):
        differences = [trainer[i, t].item() - sampler[i, t].item() for t in range(length)]
        assert tokens[i, :length].tolist() == pytest.approx([min(math.exp(d), 2.0) for d in differences])
        assert sequences[i, :length].tolist() == pytest.approx(
            [min(math.exp(sum(differences)), 2.0)] * length
        )
    assert float((tokens * ~MASK).sum()) == 0
    assert torch.equal(sampler_weights(trainer, trainer, MASK, 2.0), MASK.double())


def test_the_overlong_penalty_falls_linearly_to_minus_one() -> None:
    lengths = torch.tensor([0.0, 6.0, 7.0, 8.0, 10.0])
    assert overlong_penalty(lengths, 10, 4).tolist() == pytest.approx([0.0, 0.0, -0.25, -0.5, -1.0])
