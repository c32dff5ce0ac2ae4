"""Detects faulty training steps: values that are not finite, and loss or gradient spikes.

in:  loss and gradient norm of every step
out: what is wrong with a step, if anything, and how many were skipped

A step is faulty when its loss or gradient norm is not finite, or spikes: is far above the median of the recent good
steps, in units of their noise. The noise is the median absolute deviation or the spread of the upper tail, whichever
is larger: batches of a small corpus that is nearly memorized have losses with a long upper tail, and a few outliers
move neither. The thresholds are wide: a skipped step is lost training text, and a large but correct
gradient is clipped anyway. PaLM skipped the batches around its spikes (https://arxiv.org/abs/2204.02311, section
5.1); we differ in checking before the step is taken.
"""

import math
from dataclasses import dataclass, field
from statistics import median, quantiles

IN_A_ROW = 3
"""Consecutive skipped steps that end a training."""
HISTORY = 128
"""Recent good steps that are kept for comparison."""
MIN_HISTORY = 32
"""Good steps required before a value can count as a spike."""
SIGMAS = 12.0
"""A spike is this many standard deviations above the median."""
LEAST_RISE = {"loss": 0.25, "gradient norm": 9.0}
"""And at least this fraction of the median above it: recent values may agree closely by chance."""
LEAST_SIZE = {"loss": 1.0, "gradient norm": 8.0}
"""And at least this far above the median, in nats and in norm: smaller jumps, near a loss of 0, harm nothing."""


@dataclass
class AnomalyGuard:
    """Losses and norms of recent good steps, and counters. Saved in resume states, so a resumed run decides alike."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    skipped: int = 0
    skipped_in_a_row: int = 0
    transient: int = 0

    def fault(self, loss: float, norm: float, spikes: bool) -> str | None:
        """The fault of a step, or None. spikes: whether spikes count as faults."""
        for name, value, history in (("loss", loss, self.losses), ("gradient norm", norm, self.norms)):
            if not math.isfinite(value):
                return f"{name} was {value}"
            most = spike_threshold(history, LEAST_RISE[name], LEAST_SIZE[name]) if spikes else math.inf
            if value > most:
                return (
                    f"{name} spiked to {value:.4g}; the median of the recent steps was {median(history):.4g}"
                )
        return None

    def note_applied(self, loss: float, norm: float, transient: bool) -> None:
        """Record an applied step. transient: its first computation was faulty, the second was not."""
        self.losses = [*self.losses, loss][-HISTORY:]
        self.norms = [*self.norms, norm][-HISTORY:]
        self.transient += transient
        self.skipped_in_a_row = 0

    def note_skipped(self) -> None:
        """Record a skipped step."""
        self.skipped += 1
        self.skipped_in_a_row += 1


def spike_threshold(history: list[float], least_rise: float, least_size: float = 0.0) -> float:
    """The largest value that is no spike after `history`; infinite while the history is too short."""
    if len(history) < MIN_HISTORY:
        return math.inf
    middle = median(history)
    deviation = 1.4826 * median(abs(value - middle) for value in history)
    upper_spread = (quantiles(history, n=10)[-1] - middle) / 1.2816
    return middle + max(SIGMAS * max(deviation, upper_spread), least_rise * abs(middle), least_size)
