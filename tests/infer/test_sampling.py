"""Drawing tokens: the right distribution, nothing left-out drawn, and numbers that belong to their prompt."""

import pytest
import torch

from groundup.infer.sampling import Sampling, log_probabilities, next_tokens, uniforms


def drawn(logits: torch.Tensor, sampling: Sampling, count: int = 20_000) -> torch.Tensor:
    """Shares of each id in many draws."""
    many = log_probabilities(logits[None].expand(count, -1), sampling.temperature)
    ids = next_tokens(many, uniforms(0, 0, count), sampling)
    return torch.bincount(ids, minlength=len(logits)) / count


def test_draws_follow_the_tempered_distribution() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0])
    for temperature in (0.5, 1.0, 2.0):
        wanted = torch.softmax(logits / temperature, dim=-1)
        assert torch.allclose(drawn(logits, Sampling(temperature)), wanted, atol=0.015)


def test_temperature_0_takes_the_likeliest() -> None:
    assert drawn(torch.tensor([1.0, 0.0, 3.0]), Sampling(0.0)).tolist() == [0.0, 0.0, 1.0]


def test_top_k_leaves_only_the_k_likeliest() -> None:
    shares = drawn(torch.tensor([1.0, 0.0, -1.0, 2.0]), Sampling(1.0, top_k=2))
    assert (shares > 0).tolist() == [True, False, False, True]


def test_top_p_leaves_the_smallest_set_that_holds_the_mass() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert (drawn(logits, Sampling(1.0, top_p=0.75)) > 0).tolist() == [True, True, False, False]
    assert (drawn(logits, Sampling(1.0, top_p=0.9)) > 0).tolist() == [True, True, True, False]
    assert (drawn(logits, Sampling(1.0, top_p=0.01)) > 0).tolist() == [True, False, False, False]


def test_a_token_of_probability_0_is_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(3, -1)
    numbers = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    ids = next_tokens(log_probabilities(logits, 1.0), numbers, Sampling(1.0))
    assert set(ids.tolist()) <= {1, 3}


def test_numbers_depend_on_seed_key_and_position_alone() -> None:
    assert torch.equal(uniforms(1, 2, 10), uniforms(1, 2, 30)[:10])
    assert not torch.equal(uniforms(1, 2, 10), uniforms(1, 3, 10))
    assert not torch.equal(uniforms(1, 2, 10), uniforms(2, 2, 10))


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_impossible_settings_are_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1e-38, 1e-6])
def test_a_tiny_temperature_is_greedy_and_its_log_probabilities_are_finite(temperature: float) -> None:
    logits = torch.tensor([[1.0, 3.0, -2.0, 2.9]])
    log_probs = log_probabilities(logits, temperature)
    assert torch.equal(log_probs, torch.log_softmax(logits, dim=-1))
    assert next_tokens(log_probs, torch.tensor([0.999]), Sampling(temperature)).tolist() == [1]
