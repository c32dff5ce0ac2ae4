"""Balances the load of a model's experts during training.

in:  how many tokens each expert got since the last optimizer step
out: their biases moved (where the config balances by them); `expert_load` for the step's line
"""

from torch import nn

from groundup.model.config import DecoderConfig
from groundup.model.moe import max_load_ratio, reset_load, sparse_layers, update_biases
from groundup.parallel.context import SINGLE, ParallelContext
from groundup.train.monitor import Monitor, Values


class ExpertBalancer:
    """A monitor that balances the experts after every applied step, around another monitor if there is one.

    expert_load: the busiest expert's tokens over the mean, in the worst layer; 1 = perfectly even.
    """

    def __init__(
        self,
        model: nn.Module,
        config: DecoderConfig,
        inner: Monitor | None = None,
        parallel: ParallelContext = SINGLE,
    ) -> None:
        assert config.moe is not None
        self._model, self._moe, self._inner, self._parallel = model, config.moe, inner, parallel

    def before_step(self, step: int) -> None:
        """See `Monitor`."""
        if self._inner is not None:
            self._inner.before_step(step)

    def after_step(self, step: int) -> Values:
        """Update the biases and reset the counts."""
        for layer in sparse_layers(self._model):
            self._parallel.sum_tokens(layer.load)
        values: Values = {"expert_load": max_load_ratio(self._model)}
        if self._moe.balance == "bias":
            update_biases(self._model, self._moe.balance_rate)
        reset_load(self._model)
        return values if self._inner is None else values | self._inner.after_step(step)
