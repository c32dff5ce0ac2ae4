"""Randomness as a function of names."""

from groundup.core.rng import seed_of, share_of


def test_seeds_are_pinned_across_machines_and_versions() -> None:
    assert seed_of(0, "pretrain", 3) == seed_of(0, "pretrain", 3)
    assert seed_of(0, "a", "b") != seed_of(0, "ab")
    assert 0 <= seed_of("x") < 2**63


def test_shares_are_even_and_nested() -> None:
    shares = [share_of(str(number)) for number in range(20_000)]
    for bound in (0.02, 0.1, 0.5):
        found = sum(share < bound for share in shares) / len(shares)
        assert abs(found - bound) < 4 * (bound * (1 - bound) / len(shares)) ** 0.5
