"""Muon: momentum, made orthogonal, for the matrices inside the layers; AdamW for everything else.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; the scale that lets both share one range of
learning rates is Liu et al. 2025, https://arxiv.org/abs/2502.16982. `torch.optim.Muon` does the work.
"""

from typing import Any

import torch
from pydantic import Field
from torch import nn

from groundup.train.optimizers import NamedParameters, Optimizer, is_hidden_matrix


class Muon(Optimizer):
    """Muon for hidden matrices, AdamW for embedding, head, norms and scores."""

    lr: float = Field(default=0.007, gt=0, description="peak learning rate of the hidden matrices")
    momentum: float = Field(default=0.95, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, description="of the hidden matrices")
    iterations: int = Field(default=5, ge=1, le=10, description="Newton-Schulz iterations")
    adam_lr: float = Field(
        default=0.0, ge=0, description="peak rate of everything else; 0 = 6e-3 x sqrt(256 / d_model)"
    )
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.95, ge=0, lt=1)

    def resolved(self, d_model: int) -> "Muon":
        """With the rule for `adam_lr` applied; `lr` needs none, since an orthogonal step has its own scale."""
        rate = self.adam_lr or 6e-3 * (256 / d_model) ** 0.5
        return self.model_copy(update={"adam_lr": rate})

    def build(self, named_parameters: NamedParameters) -> torch.optim.Optimizer:
        """Both optimizers as one."""
        assert self.adam_lr > 0, "the rule for adam_lr is applied by resolved()"
        hidden: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in named_parameters:
            (hidden if is_hidden_matrix(name, parameter) else rest).append(parameter)
        betas = (self.adam_beta1, self.adam_beta2)
        adamw = torch.optim.AdamW(rest, lr=self.adam_lr, betas=betas, weight_decay=0.0, fused=True)
        if not hidden:
            return adamw
        muon = torch.optim.Muon(
            hidden,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            ns_steps=self.iterations,
            adjust_lr_fn="match_rms_adamw",
        )
        return _Together(muon, adamw)


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

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore, and hand every part its share again."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of every part."""
        for part in self._parts:
            part.step()
