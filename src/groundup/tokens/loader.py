"""Which rows a training step reads: a pure function of (seed, step), so that resuming needs no state.

in:  number of rows, rows per batch, step, seed
out: row numbers; within an epoch (one pass) no row comes twice
"""

from functools import lru_cache

import numpy as np

from groundup.core.rng import derive_seed


def sample_indices(n_rows: int, batch_rows: int, step: int, seed: int) -> np.ndarray:
    """The rows of step `step` (from 0): the next `batch_rows` of an endless sequence of shuffled epochs."""
    places = np.arange(step * batch_rows, (step + 1) * batch_rows)
    epochs, within = np.divmod(places, n_rows)
    indices = np.empty(batch_rows, dtype=np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = _order(n_rows, int(epoch), seed)[within[here]]
    return indices


@lru_cache(maxsize=4)
def _order(n_rows: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng(derive_seed(seed, "rows", epoch)).permutation(n_rows)
