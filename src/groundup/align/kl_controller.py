"""The KL coefficient of every iteration, constant or adapted to a target.

in:  the initial coefficient, a target in nats per response, the mean KL divergence of each iteration
out: the coefficient of an iteration; kept in the resume folder, so that a resumed training continues with the same one

Ziegler et al. 2019 (arXiv:1909.08593), section 2.2.
"""

import json
from pathlib import Path

from groundup.core.atomic_io import write_json
from groundup.parallel.context import ParallelContext

KL_COEF_FILE = "kl_coef.json"
"""In the resume folder: the coefficients of the iterations so far."""


class KlController:
    """The coefficients of a training. target 0: the coefficient is constant."""

    def __init__(
        self, folder: Path, parallel: ParallelContext, coef: float, target: float, horizon: float
    ) -> None:
        self._path, self._parallel = folder / KL_COEF_FILE, parallel
        self._target, self._horizon = target, horizon
        kept = parallel.broadcast_object(
            lambda: json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else None
        )
        self._coefs: list[float] = kept or [coef]

    def coef(self, iteration: int) -> float:
        """The coefficient of an iteration, whose predecessors were all observed."""
        return self._coefs[iteration] if self._target else self._coefs[0]

    def observe(self, iteration: int, kl: float, responses: int) -> None:
        """Set the next iteration's coefficient by the mean KL divergence of this one's responses."""
        if not self._target:
            return
        adapted = adaptive_kl_coef(self._coefs[iteration], kl, self._target, self._horizon, responses)
        self._coefs = [*self._coefs[: iteration + 1], adapted]
        if self._parallel.is_rank0:
            write_json(self._path, self._coefs)


def adaptive_kl_coef(coef: float, kl: float, target: float, horizon: float, responses: int) -> float:
    """The next KL coefficient: raised where KL is above its target, lowered where it is below.

    Ziegler et al. 2019 (arXiv:1909.08593), section 2.2. horizon: responses over which the coefficient adapts.
    """
    error = min(0.2, max(-0.2, kl / target - 1))
    return coef * (1 + error * responses / horizon)
