"""Losses and gradients against the code of TRL 1.16, which runs in an environment of its own.

python3 -m venv peer && peer/bin/pip install -r benchmarks/trl.txt
GROUNDUP_TRL=peer/bin/python pytest tests/align/test_objectives_against_trl.py
"""

import json
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.align import group_objectives as groups
from groundup.align import preference_objectives as preferences

PEER = os.environ.get("GROUNDUP_TRL", "")
pytestmark = pytest.mark.skipif(
    not PEER, reason="set GROUNDUP_TRL to the Python of an environment with benchmarks/trl.txt"
)
BETA, EPS, KL_COEF, LONGEST = 0.3, 0.1, 0.05, 10
PAIR_LENGTHS, GROUP_LENGTHS = (5, 2, 6, 1, 3, 6, 4, 2), (5, 2, 7, 1, 6, 3)
DESIRABLE = (True, False, True, True, False, False, True, False)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mask_of(lengths: tuple[int, ...], time: int) -> Tensor:
    return torch.arange(time)[None, :] < torch.tensor(lengths)[:, None]


PAIR_MASK, GROUP_MASK = mask_of(PAIR_LENGTHS, 6), mask_of(GROUP_LENGTHS, 7)
PAIR_LOG_PROBS, REFERENCE = -draw(0, 8, 6).abs() * 2 * PAIR_MASK, -draw(1, 8).abs() * 8
MISMATCHED, MISMATCHED_REFERENCE = -draw(2, 8).abs() * 4, -draw(3, 8).abs() * 4 - 1
LOG_PROBS = -draw(4, 6, 7).abs() * 2
OLD, GROUP_REFERENCE = LOG_PROBS + 0.4 * draw(5, 6, 7), LOG_PROBS + 0.3 * draw(6, 6, 7)
ADVANTAGES = draw(7, 6)
TOKENS = PAIR_MASK.sum(dim=1).double()


def pair_loss(per_pair: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Mean over pairs of a loss of (chosen log-ratio, rejected log-ratio, chosen mean, rejected mean)."""

    def loss(log_probs: Tensor) -> Tensor:
        sums = (log_probs * PAIR_MASK).sum(dim=1)
        ratios, means = sums - REFERENCE, preferences.mean_per_token(sums, TOKENS)
        return per_pair(*ratios.chunk(2), *means.chunk(2)).mean()

    return loss


def normalised(ratios: Tensor, half: int) -> Tensor:
    return ratios / TOKENS.chunk(2)[half]


def kto_loss(log_probs: Tensor) -> Tensor:
    ratios = (log_probs * PAIR_MASK).sum(dim=1) - REFERENCE
    point = preferences.kto_reference_point(MISMATCHED - MISMATCHED_REFERENCE)
    assert point > 0
    return preferences.kto(ratios, torch.tensor(DESIRABLE), point, BETA, (1.0, 1.3)).mean()


def unpaired_apo_loss(log_probs: Tensor) -> Tensor:
    ratios = (log_probs * PAIR_MASK).sum(dim=1) - REFERENCE
    return preferences.kto(ratios, torch.tensor(DESIRABLE), 0.0, BETA, (1.0, 1.3)).mean()


def group_loss(
    aggregation: groups.Aggregation, ratio: groups.Ratio = "token", clips_weight: bool = False
) -> Callable[[Tensor], Tensor]:
    def loss(log_probs: Tensor) -> Tensor:
        ratios = torch.exp(groups.log_ratios(log_probs, OLD, GROUP_MASK, ratio))
        advantages = ADVANTAGES[:, None].expand_as(ratios)
        if clips_weight:
            losses = groups.clipped_weight(log_probs, ratios, advantages, 1.0, 0.28)
        else:
            losses = groups.clipped_surrogate(ratios, advantages, 0.2, 0.28)
        losses = losses + KL_COEF * groups.kl_penalty(log_probs, GROUP_REFERENCE, ratios, "k3")
        weights = groups.token_weights(GROUP_MASK, aggregation, LONGEST)
        return (losses * weights).sum()

    return loss


def rloo_loss(log_probs: Tensor) -> Tensor:
    """TRL clips the ratio of whole answers; ours of their tokens' product is the same."""
    ratios = torch.exp(((log_probs - OLD) * GROUP_MASK).sum(dim=1, keepdim=True))
    return groups.clipped_surrogate(ratios, ADVANTAGES[:, None], 0.2, 0.2).mean()


OURS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "dpo/sigmoid": (pair_loss(lambda w, r, *_: preferences.dpo_sigmoid(w - r, BETA)), PAIR_LOG_PROBS),
    "dpo/robust": (pair_loss(lambda w, r, *_: preferences.dpo_robust(w - r, BETA, EPS)), PAIR_LOG_PROBS),
    "dpo/hinge": (pair_loss(lambda w, r, *_: preferences.dpo_hinge(w - r, BETA)), PAIR_LOG_PROBS),
    "dpo/ipo": (
        pair_loss(lambda w, r, *_: preferences.ipo(normalised(w, 0) - normalised(r, 1), BETA)),
        PAIR_LOG_PROBS,
    ),
    "dpo/sigmoid_norm": (
        pair_loss(lambda w, r, *_: preferences.dpo_sigmoid(normalised(w, 0) - normalised(r, 1), BETA)),
        PAIR_LOG_PROBS,
    ),
    "dpo/apo_zero": (pair_loss(lambda w, r, *_: preferences.apo_zero(w, r, BETA)), PAIR_LOG_PROBS),
    "dpo/apo_down": (pair_loss(lambda w, r, *_: preferences.apo_down(w, r, BETA)), PAIR_LOG_PROBS),
    "kto/kto": (kto_loss, PAIR_LOG_PROBS),
    "kto/apo_zero_unpaired": (unpaired_apo_loss, PAIR_LOG_PROBS),
    "cpo/sigmoid": (
        pair_loss(
            lambda w, r, *_: preferences.cpo(w + REFERENCE.chunk(2)[0], r + REFERENCE.chunk(2)[1], BETA)
        ),
        PAIR_LOG_PROBS,
    ),
    "cpo/simpo": (pair_loss(lambda _, __, w, r: preferences.simpo(w, r, 2.0, 0.5)), PAIR_LOG_PROBS),
    "orpo": (pair_loss(lambda _, __, w, r: preferences.orpo(w, r, 0.25)), PAIR_LOG_PROBS),
    "grpo/token": (group_loss("response_mean"), LOG_PROBS),
    "grpo/sequence": (group_loss("response_mean", "sequence"), LOG_PROBS),
    "dr_grpo/token": (group_loss("constant"), LOG_PROBS),
    "dapo/token": (group_loss("token_mean"), LOG_PROBS),
    "cispo/token": (group_loss("token_mean", clips_weight=True), LOG_PROBS),
    "rloo": (rloo_loss, LOG_PROBS),
}


@cache
def theirs() -> dict[str, Any]:
    """TRL's values and gradients, of the same numbers."""
    cases = {
        "preferences": {
            "log_probs": PAIR_LOG_PROBS.tolist(), "mask": PAIR_MASK.long().tolist(), "reference": REFERENCE.tolist(),
            "mismatched": MISMATCHED.tolist(), "mismatched_reference": MISMATCHED_REFERENCE.tolist(),
            "desirable": DESIRABLE, "beta": BETA, "label_smoothing": EPS},
        "groups": {
            "log_probs": LOG_PROBS.tolist(), "mask": GROUP_MASK.long().tolist(), "old": OLD.tolist(),
            "reference": GROUP_REFERENCE.tolist(), "advantages": ADVANTAGES.tolist(), "kl_coef": KL_COEF,
            "longest": LONGEST},
    }  # fmt: skip
    script = Path(__file__).with_name("trl_peer.py")
    ran = subprocess.run([PEER, script], input=json.dumps(cases), capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", OURS)
def test_value_and_gradient_equal_trls(name: str, record_property: Callable[[str, object], None]) -> None:
    loss, numbers = OURS[name]
    leaf = numbers.clone().requires_grad_()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    expected = torch.tensor(theirs()[name]["gradient"], dtype=torch.float64)
    record_property("value", value.item())
    print(f"{name:22} {value.item():+.8f} {abs(value.item() - theirs()[name]['value']):.1e} "
          f"{float((gradient - expected).abs().max()):.1e}")  # fmt: skip
    assert value.item() == pytest.approx(theirs()[name]["value"], abs=1e-5)
    assert torch.allclose(gradient, expected, atol=1e-5, rtol=0)
