"""AdamW: Adam with decoupled weight decay.

Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101. Norms and embeddings aren't decayed.
"""

from typing import Any

import torch
from pydantic import Field
from torch import nn

from groundup.train.optimizers import NamedParameters, Optimizer, is_hidden_matrix


class AdamW(Optimizer):
    """AdamW over all parameters; only matrices inside the layers are decayed."""

    lr: float = Field(default=0.0, ge=0, description="peak rate; 0 = 3e-3 x sqrt(256 / d_model)")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="memory of the mean")
    beta2: float = Field(default=0.95, ge=0, lt=1, description="memory of the squares")
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)

    def resolved(self, d_model: int) -> "AdamW":
        """With the rule for `lr` applied."""
        return self.model_copy(update={"lr": self.lr or 3e-3 * (256 / d_model) ** 0.5})

    def build(self, named_parameters: NamedParameters) -> torch.optim.Optimizer:
        """One fused AdamW with two groups: decayed and not."""
        assert self.lr > 0, "the rule for lr is applied by resolved()"
        decayed: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in named_parameters:
            (decayed if is_hidden_matrix(name, parameter) else rest).append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            fused=True,
        )
