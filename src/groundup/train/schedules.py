"""Learning-rate schedules as functions of the step.

in:  step, number of steps
out: a factor in [0, 1] that multiplies every parameter group's learning rate
"""

import math
from typing import Literal

ScheduleName = Literal["constant", "linear", "cosine", "wsd"]


def schedule_factor(
    schedule: ScheduleName,
    step: int,
    steps: int,
    warmup_steps: int = 0,
    min_lr_ratio: float = 0.0,
    decay_fraction: float = 0.4,
    start: int = 0,
) -> float:
    """The factor at `step` of a run that ends after `steps`; the schedule begins at step `start`.

    All schedules rise linearly over `warmup_steps` and, except constant, end at `min_lr_ratio`: linear and cosine
    (Loshchilov and Hutter 2016, https://arxiv.org/abs/1608.03983) fall from the warm-up's end; wsd (warm-up, stable,
    decay; Hu et al. 2024, https://arxiv.org/abs/2404.06395) stays at 1 and falls linearly over the last
    `decay_fraction` of the steps.

    To anneal a checkpoint of wsd's stable phase (or of a constant run) taken at step S over N steps: linear,
    start = S, steps = S + N, no warm-up, with the checkpoint's optimizer state and the batches from step S on. The
    factors are those of a wsd run of S + N steps, so one stable run serves any number of horizons.

    Steps after the last one have the last factor.
    """
    assert start <= step, f"step {step} lies before the schedule's start {start}"
    step, steps = step - start, steps - start
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    done = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        decayed = done
    elif schedule == "cosine":
        decayed = (1 - math.cos(math.pi * done)) / 2
    else:
        decayed = max(0.0, (step - steps * (1 - decay_fraction)) / max(1.0, steps * decay_fraction))
    return 1 - (1 - min_lr_ratio) * min(1.0, decayed)
