"""Training backends, one per file; `runtime.engine` names one.

in:  EngineSpec: a decoder, a function that builds the optimizer, a loss, the ranks
out: TrainEngine, which the training loop calls, saves and loads
"""

from typing import Protocol

from groundup.parallel.engine import EngineSpec, TrainEngine


class EngineRecipe(Protocol):
    """A part that makes learners."""

    def prepare(self, setup: EngineSpec) -> TrainEngine:
        """Spread the model over the ranks. Raises GroundupError for what this engine can't do."""
        ...
