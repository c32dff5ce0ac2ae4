"""Randomness as a function: the same names give the same numbers, on every machine and after every crash."""

import hashlib


def derive_seed(*parts: str | int) -> int:
    """A seed in [0, 2**63) that depends on `parts` alone, e.g. `seed_of(seed, "pretrain", epoch)`."""
    said = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "big") >> 1


def hash_fraction(key: str) -> float:
    """Where `key` falls in [0, 1). A split keeps everything below its share.

    Two splits of the same keys are nested: whatever is below 0.02 is also below 0.1.
    """
    return derive_seed("share", key) / 2**63
