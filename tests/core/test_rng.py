"""Randomness as a function of names."""

from groundup.core.rng import derive_seed, hash_fraction


def test_seeds_are_pinned_across_machines_and_versions() -> None:
    assert derive_seed(0, "pretrain", 3) == derive_seed(0, "pretrain", 3)
    assert derive_seed(0, "a", "b") != derive_seed(0, "ab")
    assert 0 <= derive_seed("x") < 2**63


def test_shares_are_even_and_nested() -> None:
    shares = [hash_fraction(str(number)) for number in range(20_000)]
    for bound in (0.02, 0.1, 0.5):
        found = sum(share < bound for share in shares) / len(shares)
        assert abs(found - bound) < 4 * (bound * (1 - bound) / len(shares)) ** 0.5
