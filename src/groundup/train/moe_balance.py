"""Keeps a model's experts busy while it trains.

in:  how many tokens each expert got since the last optimizer step
out: their biases moved (where the config balances by them); `expert_load` for the step's line
"""

from torch import nn

from groundup.model.config import DecoderConfig
from groundup.model.moe import max_load_ratio, reset_load, sparse_layers, update_biases
from groundup.parallel.context import SINGLE, ParallelContext
from groundup.train.monitor import Monitor, Values


class ExpertBalancer:
    """Balances after every step that is taken, then lets another watch look, if there is one.

    expert_load: the busiest expert's tokens over the mean, in the worst layer; 1 = perfectly even.
    """

    def __init__(
        self,
        model: nn.Module,
        config: DecoderConfig,
        other: Monitor | None = None,
        world: ParallelContext = SINGLE,
    ) -> None:
        assert config.moe is not None
        self._model, self._moe, self._other, self._world = model, config.moe, other, world

    def before_step(self, step: int) -> None:
        """Passes on."""
        if self._other is not None:
            self._other.before_step(step)

    def after_step(self, step: int) -> Values:
        """Move the biases, count anew."""
        for layer in sparse_layers(self._model):
            self._world.sum_tokens(layer.load)
        values: Values = {"expert_load": max_load_ratio(self._model)}
        if self._moe.balance == "bias":
            update_biases(self._model, self._moe.balance_rate)
        reset_load(self._model)
        return values if self._other is None else values | self._other.after_step(step)
