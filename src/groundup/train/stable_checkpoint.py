"""The probe that saves the stable checkpoint of the schedule wsd, from before the learning rate falls.

in:  the schedule, the steps of a training; what saves the checkpoint
out: a probe, or none for other schedules
"""

from collections.abc import Callable

from groundup.train.loop import Probe
from groundup.train.schedules import ScheduleName


def stable_checkpoint_probe(
    schedule: ScheduleName, stable: int, steps: int, save: Callable[[], None]
) -> list[Probe]:
    """stable: steps before the learning rate falls. save: called after them."""
    if schedule != "wsd" or not 0 < stable < steps:
        return []

    def keep(step: int) -> dict[str, float]:
        if step == stable:
            save()
        return {}

    return [Probe(stable, keep)]


def stable_steps(steps: int, decay_fraction: float) -> int:
    """Steps before the learning rate falls."""
    return round(steps * (1 - decay_fraction))
