"""Seeds derived from names: the same names give the same numbers on every machine and after every crash."""

import hashlib


def derive_seed(*names: str | int) -> int:
    """A seed in [0, 2**63) that depends on `names` alone, e.g. `derive_seed(seed, "pretrain", epoch)`."""
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def hash_fraction(key: str) -> float:
    """A number in [0, 1) that depends on `key` alone, uniform over keys. A split keeps the keys below its share.

    Two splits of the same keys are nested: every key below 0.02 is also below 0.1.
    """
    return derive_seed("share", key) / 2**63
