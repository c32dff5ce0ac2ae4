"""How much of its data a training reads, and which limit ends it.

in:  the number of items, the items of a step, the limits in steps
out: TrainingBudget: steps, epochs, the share of the items that is never read
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainingBudget:
    """What a training reads of its data, in which every item is read once per epoch."""

    steps: int
    ended_by: str
    """key of the limit that ends the training"""
    epochs: float
    unread_share: float
    """share of the items that is never read"""

    def metrics(self) -> dict[str, Any]:
        """The values for a stage's metrics."""
        return {"epochs": self.epochs, "unread_share": self.unread_share, "ended_by": self.ended_by}

    def sentence(self, items: str, limit: object) -> str:
        """One line for the user. items: what is read; limit: value of the key that ends the training."""
        value = f"{limit:,}" if isinstance(limit, int) else f"{limit}"
        unread = f", {self.unread_share:.0%} of them never" if self.unread_share else ""
        return f"reads the {items} {self.epochs:.2f} times{unread}: {self.ended_by} = {value} ends it"


def training_budget(
    items: int, per_step: int, limits: Mapping[str, int], packed_share: float = 1.0
) -> TrainingBudget:
    """The steps up to the first limit, at least one. Of equal limits the first one counts.

    packed_share: share of the data that is in `items`; the rest is never read.
    """
    ended_by = min(limits, key=lambda key: limits[key])
    steps = max(1, limits[ended_by])
    epochs = steps * per_step / items
    return TrainingBudget(steps, ended_by, packed_share * epochs, 1 - packed_share * min(1.0, epochs))
