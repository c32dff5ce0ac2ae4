"""The rules that carry a recipe from one size to another, against the exponents of their papers."""

import math

import pytest

from groundup.model import scaling
from groundup.model.config import DecoderConfig
from groundup.model.flops import parameters
from groundup.train.optimizers.adamw import AdamW
from groundup.train.optimizers.muon import Muon

REFERENCE = {
    "d_model": scaling.REFERENCE_WIDTH,
    "batch_tokens": scaling.REFERENCE_BATCH,
    "tokens": scaling.REFERENCE_TOKENS,
}


@pytest.mark.parametrize(
    ("number", "exponent"), [("d_model", -0.5), ("batch_tokens", 0.5), ("tokens", -0.32)]
)
def test_rates_follow_powers_of_width_batch_and_tokens(number: str, exponent: float) -> None:
    assert scaling.rate_factor(**REFERENCE) == 1
    for times in (0.25, 2, 16):
        changed = REFERENCE | {number: int(REFERENCE[number] * times)}
        assert scaling.rate_factor(**changed) == pytest.approx(times**exponent, rel=1e-3)


def test_an_orthogonal_update_keeps_its_spectral_norm_at_any_width() -> None:
    # Of root mean square r, d x d: spectral norm r sqrt(d), since all d singular values are alike.
    norms = [scaling.rate_factor(width, 8192, 4_000_000) * width**0.5 for width in (64, 256, 2048)]
    assert norms == pytest.approx([norms[0]] * 3)


def test_a_rate_that_is_given_is_left_alone() -> None:
    assert AdamW(lr=1e-4).resolved(1024, batch_tokens=1, tokens=1).lr == 1e-4
    muon = Muon(lr=0.1).resolved(64)
    assert muon.lr == 0.1
    assert muon.adam_lr == pytest.approx(scaling.ADAM_WITH_MUON_RATE * 2)


def test_resolving_twice_changes_nothing() -> None:
    for part in (AdamW(), Muon(), AdamW(weight_decay="auto"), Muon(weight_decay="auto")):
        once = part.resolved(512, batch_tokens=65_536, tokens=10**9)
        assert once.resolved(128) == once


def test_the_horizon_is_twenty_tokens_per_parameter_of_the_layers() -> None:
    config = DecoderConfig(1000, 64, 3, 2, 2, 32, 192)
    norms = 3 * (2 * 64 + 2 * 32) + 64
    assert scaling.horizon_tokens(config) == 20 * (parameters(config) - 2 * 1000 * 64 - norms)


def test_the_batch_grows_with_the_square_of_depth() -> None:
    assert [scaling.batch_tokens(depth) for depth in (1, 2, 4, 8, 16)] == [512 * 4**n for n in range(5)]
    assert scaling.batch_tokens(3) == 4096  # 4608, to the nearest power of two


@pytest.mark.parametrize("part", [AdamW(weight_decay="auto"), Muon(weight_decay="auto")])
def test_decay_forgets_over_the_same_share_of_a_run_at_any_size(part: AdamW | Muon) -> None:
    for d_model, batch_tokens, tokens in ((128, 2048, 10**6), (256, 8192, 10**7), (2048, 2**19, 10**10)):
        resolved = part.resolved(d_model, batch_tokens=batch_tokens, tokens=tokens)
        assert resolved.weight_decay != "auto"
        steps = tokens / batch_tokens * scaling.DECAY_FRACTION
        assert (1 - resolved.lr * resolved.weight_decay) ** steps == pytest.approx(math.exp(-1), rel=0.05)


def test_nothing_decays_by_rule_where_the_length_of_the_run_is_not_known() -> None:
    assert Muon(weight_decay="auto").resolved(256).weight_decay == 0
    assert Muon(weight_decay=0.3).resolved(256).weight_decay == 0.3
