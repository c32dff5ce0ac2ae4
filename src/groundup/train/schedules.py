"""Learning-rate schedules as functions of the step.

in:  step, number of steps
out: a factor in [0, 1] that multiplies every parameter group's learning rate
"""

import math
from typing import Literal

Kind = Literal["constant", "linear", "cosine", "wsd"]


def schedule_factor(
    kind: Kind, step: int, steps: int, warmup: int = 0, final: float = 0.0, decay_share: float = 0.4
) -> float:
    """The factor at `step` (from 0) of a run of `steps`.

    All kinds rise linearly over `warmup` steps and, but for constant, end at `final`:
    linear and cosine fall from the warm-up's end; wsd (warm-up, stable, decay; Hu et al. 2024,
    https://arxiv.org/abs/2404.06395) stays at 1 and falls linearly over the last `decay_share` of the steps.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    if kind == "constant":
        return 1.0
    if kind == "linear":
        fallen = done
    elif kind == "cosine":
        fallen = (1 - math.cos(math.pi * done)) / 2
    else:
        fallen = max(0.0, (step - steps * (1 - decay_share)) / max(1.0, steps * decay_share))
    return 1 - (1 - final) * min(1.0, fallen)
