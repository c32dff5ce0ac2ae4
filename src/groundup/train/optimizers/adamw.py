"""AdamW: Adam with decoupled weight decay.

Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101. Norms and embeddings aren't decayed.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field

from groundup.model import scaling
from groundup.model.scaling import REFERENCE_BATCH, REFERENCE_TOKENS
from groundup.parallel.shard import group_by_mesh
from groundup.train.optimizers import Decay, NamedParameters, Optimizer, by_role, decay_of


class AdamW(Optimizer):
    """AdamW over all parameters; only matrices inside the layers are decayed."""

    version: ClassVar[int] = 2
    derived: ClassVar[dict[str, Any]] = {"lr": 0.0, "weight_decay": "auto"}

    lr: float = Field(
        default=0.0, ge=0, description="peak learning rate; 0 = by the rules of `model/scaling.py`"
    )
    beta1: float = Field(default=0.9, ge=0, lt=1, description="decay rate of the first-moment average")
    beta2: float = Field(default=0.95, ge=0, lt=1, description="decay rate of the second-moment average")
    eps: float = Field(default=1e-8, gt=0, description="added to the denominator")
    weight_decay: Decay = Field(
        default=0.1,
        description="weight decay of the hidden matrices; auto = by the rules",
    )
    embedding: float = Field(default=1.0, ge=0, description="learning rate of embeddings as a multiple of lr")
    head: float = Field(default=1.0, ge=0, description="learning rate of the head as a multiple of lr")
    scalar: float = Field(
        default=1.0, ge=0, description="learning rate of norms and scalars as a multiple of lr"
    )

    def resolved(self, d_model: int, *, batch_tokens: int = REFERENCE_BATCH, tokens: int = 0) -> "AdamW":
        """With the rules for rate and decay applied."""
        factor = scaling.rate_factor(d_model, batch_tokens, tokens or REFERENCE_TOKENS)
        lr = self.lr or scaling.ADAM_RATE * factor
        decay = decay_of(self.weight_decay, lr, batch_tokens, tokens)
        return self.model_copy(update={"lr": lr, "weight_decay": decay})

    def build(self, named_parameters: NamedParameters) -> torch.optim.Optimizer:
        """One fused AdamW with a group per kind of parameter."""
        assert self.lr > 0, "the rule for lr is applied by resolved()"
        decay = 0.0 if self.weight_decay == "auto" else self.weight_decay
        factors = {"hidden": 1.0, "embedding": self.embedding, "head": self.head, "scalar": self.scalar}
        groups = [
            {
                "params": alike,
                "lr": self.lr * factors[kind],
                "weight_decay": decay if kind == "hidden" else 0.0,
            }
            for kind, parameters in by_role(named_parameters).items()
            for alike in group_by_mesh(parameters)
        ]
        return torch.optim.AdamW(groups, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps, fused=True)
