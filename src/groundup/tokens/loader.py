"""The items that a training step reads: a pure function of (seed, step), so that resuming needs no state.

in:  number of items, items per step, step, seed
out: item numbers; within an epoch (one pass) no item is read twice
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from groundup.core.rng import derive_seed

EpochOrder = Callable[[int], Sequence[int] | np.ndarray]
"""epoch -> a permutation of all items"""


def sample_indices(n_rows: int, batch_rows: int, step: int, seed: int) -> np.ndarray:
    """The rows of step `step` (from 0)."""
    return step_indices(n_rows, batch_rows, step, lambda epoch: _row_order(n_rows, epoch, seed))


def step_indices(count: int, per_step: int, step: int, order: EpochOrder) -> np.ndarray:
    """The items of step `step` (from 0): the next `per_step` of an endless sequence of shuffled epochs.

    A step may extend over the end of an epoch.
    """
    epochs, within = np.divmod(np.arange(step * per_step, (step + 1) * per_step), count)
    items = np.empty(per_step, dtype=np.int64)
    for epoch in np.unique(epochs):
        in_epoch = epochs == epoch
        items[in_epoch] = np.asarray(order(int(epoch)))[within[in_epoch]]
    return items


@lru_cache(maxsize=4)
def _row_order(n_rows: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng(derive_seed(seed, "rows", epoch)).permutation(n_rows)
