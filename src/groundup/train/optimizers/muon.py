"""Muon: orthogonalised momentum for the matrices inside the layers; AdamW for all other parameters.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; the scale that lets both share one range of
learning rates is Liu et al. 2025, https://arxiv.org/abs/2502.16982.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field

from groundup.model import scaling
from groundup.model.scaling import REFERENCE_BATCH, REFERENCE_TOKENS
from groundup.parallel.hardware import cpu_has_fast_bf16
from groundup.parallel.shard import group_by_mesh
from groundup.train.optimizers import Decay, NamedParameters, Optimizer, ParameterRole, by_role, decay_of
from groundup.train.optimizers._matrices import MatrixOptimizer, Rules
from groundup.train.optimizers._orthogonal import polar_express


class Muon(Optimizer):
    """Muon for hidden matrices, AdamW for embedding, head, norms and scores."""

    version: ClassVar[int] = 3
    derived: ClassVar[dict[str, Any]] = {"lr": 0.0, "adam_lr": 0.0, "weight_decay": "auto"}

    lr: float = Field(
        default=0.0,
        ge=0,
        description="peak learning rate of the hidden matrices; 0 = by the rules of `model/scaling.py`",
    )
    momentum: float = Field(default=0.95, ge=0, lt=1)
    weight_decay: Decay = Field(
        default="auto",
        description="weight decay of the hidden matrices; auto = by the rules",
    )
    normuon_beta2: float = Field(
        default=0.95,
        ge=0,
        lt=1,
        description="NorMuon: decay rate of each neuron's second-moment average; 0 = neurons are not scaled",
    )
    ns_steps: int = Field(
        default=4, ge=1, le=10, description="iterations of Polar Express, which orthogonalises the momentum"
    )
    adam_lr: float = Field(
        default=0.0, ge=0, description="peak AdamW learning rate of all other parameters; 0 = by the rules"
    )
    embedding: float = Field(
        default=1.0, ge=0, description="learning rate of embeddings as a multiple of adam_lr"
    )
    head: float = Field(default=1.0, ge=0, description="learning rate of the head as a multiple of adam_lr")
    scalar: float = Field(
        default=1.0, ge=0, description="learning rate of norms and scalars as a multiple of adam_lr"
    )
    adam_beta1: float = Field(default=0.8, ge=0, lt=1)
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)

    def resolved(self, d_model: int, *, batch_tokens: int = REFERENCE_BATCH, tokens: int = 0) -> "Muon":
        """With the rules for rates and decay applied."""
        factor = scaling.rate_factor(d_model, batch_tokens, tokens or REFERENCE_TOKENS)
        lr, adam_lr = (
            self.lr or scaling.MUON_RATE * factor,
            self.adam_lr or scaling.ADAM_WITH_MUON_RATE * factor,
        )
        decay = decay_of(self.weight_decay, lr, batch_tokens, tokens)
        return self.model_copy(update={"lr": lr, "adam_lr": adam_lr, "weight_decay": decay})

    def build(self, named_parameters: NamedParameters) -> torch.optim.Optimizer:
        """Both optimizers as one."""
        assert self.lr > 0 and self.adam_lr > 0, "the rules for lr and adam_lr are applied by resolved()"
        parameters = by_role(named_parameters)
        factors: dict[ParameterRole, float] = {
            "embedding": self.embedding,
            "head": self.head,
            "scalar": self.scalar,
        }
        groups = [
            {"params": alike, "lr": self.adam_lr * factor}
            for kind, factor in factors.items()
            for alike in group_by_mesh(parameters[kind])
        ]
        parts: list[torch.optim.Optimizer] = []
        if parameters["hidden"]:
            rules = self._rules(parameters["hidden"][0].device)
            parts.append(MatrixOptimizer(parameters["hidden"], self.lr, rules))
        if groups:
            betas = (self.adam_beta1, self.adam_beta2)
            parts.append(torch.optim.AdamW(groups, betas=betas, weight_decay=0.0, fused=True))
        return _Together(*parts)

    def _rules(self, device: torch.device) -> Rules:
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else cpu_has_fast_bf16()
        return Rules(
            momentum=self.momentum,
            weight_decay=0.0 if self.weight_decay == "auto" else self.weight_decay,
            normuon_beta2=self.normuon_beta2,
            coefficients=polar_express(self.ns_steps),
            dtype=torch.bfloat16 if fast else torch.float32,
        )


class _Together(torch.optim.Optimizer):
    """Several optimizers behind one set of groups and one state."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._parts = parts
        self._share()

    def _share(self) -> None:
        groups = list(self.param_groups)
        for part in self._parts:
            size = len(part.param_groups)
            part.param_groups, groups = groups[:size], groups[size:]
            part.state = self.state
            if isinstance(part, MatrixOptimizer):
                part.forget_stacks()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, and give each optimizer its part."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of each optimizer."""
        for part in self._parts:
            part.step()
