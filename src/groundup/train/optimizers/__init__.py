"""The slot of optimizers: a part turns named parameters into a torch optimizer."""

from collections.abc import Iterable

import torch
from torch import nn

from groundup.core.recipe import Recipe

NamedParameters = Iterable[tuple[str, nn.Parameter]]


class Optimizer(Recipe):
    """Base of the parts in this folder."""

    def resolved(self, d_model: int) -> "Optimizer":
        """The same with every rate that is left to the rules (0) written out, for a model of this width."""
        raise NotImplementedError

    def build(self, named_parameters: NamedParameters) -> torch.optim.Optimizer:
        """An optimizer over all of them, whose state_dict the training loop can save and restore."""
        raise NotImplementedError


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter maps the stream to the stream: no embedding, head, score or norm."""
    return parameter.dim() == 2 and not any(part in name for part in ("embed_tokens", "lm_head", "score"))
