"""The chunked losses against plain float64 ones."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.model import losses
from groundup.model.losses import cross_entropy, log_probs_and_entropy, token_log_probs


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "CHUNK", 7)  # 30 positions: several chunks and a shorter last one


def material(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(30, 16, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    head = torch.randn(50, 16, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    targets = torch.randint(0, 50, (30,), generator=generator)
    weights = torch.rand(30, generator=generator) * (torch.rand(30, generator=generator) > 0.3)
    return hidden, head, targets, weights


def reference(hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    logits = hidden.double() @ head.double().T
    return (F.cross_entropy(logits, targets, reduction="none") * weights.double()).sum()


def test_cross_entropy_and_its_gradients_equal_the_plain_ones() -> None:
    hidden, head, targets, weights = material(torch.float32)
    expected = reference(hidden, head, targets, weights)
    wanted = torch.autograd.grad(3 * expected, (hidden, head))
    loss, total = cross_entropy(hidden, head, targets, weights)
    found = torch.autograd.grad(3 * loss, (hidden, head))
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    assert total.item() == pytest.approx(weights.sum().item())
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_without_gradients_the_loss_is_the_same() -> None:
    hidden, head, targets, weights = material(torch.float32)
    with_gradient, _ = cross_entropy(hidden, head, targets, weights)
    with torch.no_grad():
        without, _ = cross_entropy(hidden, head, targets, weights)
    torch.testing.assert_close(without, with_gradient)


def test_positions_of_weight_zero_get_no_gradient() -> None:
    hidden, head, targets, weights = material(torch.float32)
    cross_entropy(hidden, head, targets, weights)[0].backward()
    assert hidden.grad is not None
    assert (hidden.grad[weights == 0] == 0).all()
    assert (hidden.grad[weights > 0].abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_log_probabilities_and_entropy_equal_the_plain_ones(temperature: float) -> None:
    hidden, head, targets, _ = material(torch.float32)
    logits = hidden.double() @ head.double().T / temperature
    wanted = logits.log_softmax(dim=-1)
    found, entropy = log_probs_and_entropy(hidden.view(3, 10, 16), head, targets.view(3, 10), temperature)
    picked = wanted.gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found.flatten().double(), picked, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        entropy.flatten().double(), -(wanted.exp() * wanted).sum(dim=-1), atol=1e-5, rtol=1e-5
    )
    ours = torch.autograd.grad(found.sum(), (hidden, head))
    theirs = torch.autograd.grad(picked.sum(), (hidden, head))
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


def test_log_probabilities_are_minus_the_cross_entropy() -> None:
    hidden, head, targets, _ = material(torch.float32)
    log_probs = token_log_probs(hidden[None], head, targets[None])
    loss, _ = cross_entropy(hidden, head, targets, torch.ones(30))
    torch.testing.assert_close(-log_probs.sum(), loss, rtol=1e-5, atol=1e-5)
