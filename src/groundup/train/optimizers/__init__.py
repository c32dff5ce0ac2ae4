"""The registry of optimizers: each recipe turns named parameters into a torch optimizer."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from pydantic import Field
from torch import nn

from groundup.core.recipe import Recipe
from groundup.model import scaling
from groundup.model.scaling import REFERENCE_BATCH

NamedParameters = Iterable[tuple[str, nn.Parameter]]
Decay = Annotated[float, Field(ge=0)] | Literal["auto"]
ParameterRole = Literal["hidden", "embedding", "head", "scalar"]


class Optimizer(Recipe):
    """Base of the optimizers in this folder."""

    derived: ClassVar[dict[str, Any]] = {"weight_decay": "auto"}
    """Fields that the rules can fill, with the value that leaves them to the rules; rates before the decay."""

    def by_rule(self, d_model: int, *, batch_tokens: int, tokens: int) -> "Optimizer":
        """The same with every value that equals the rule's for these numbers left to the rules again.

        A recipe is resolved before the data is known; training applies the rules to the tokens that there are.
        """
        fields = {}
        for name, by_rule in self.derived.items():
            rule = self.model_copy(update={name: by_rule}).resolved(
                d_model, batch_tokens=batch_tokens, tokens=tokens
            )
            if getattr(rule, name) == getattr(self, name):
                fields[name] = by_rule
        return self.model_copy(update=fields)

    @abstractmethod
    def resolved(self, d_model: int, *, batch_tokens: int = REFERENCE_BATCH, tokens: int = 0) -> "Optimizer":
        """The same with everything that is left to the rules of `model/scaling.py` written out.

        For a model of this width that learns from `tokens` tokens from noise on, `batch_tokens` at a step. 0 tokens =
        not known, or the weights were trained before: the rate is that of a short run, and nothing decays by rule.
        """

    @abstractmethod
    def build(self, named_parameters: NamedParameters) -> torch.optim.Optimizer:
        """An optimizer over all that learn, whose state_dict the training loop can save and restore.

        Rates must be written out; decay that is still "auto" is none.
        """


def role_of(name: str, parameter: nn.Parameter) -> ParameterRole:
    """The role of a parameter, which decides its learning rate.

    hidden: a matrix from the stream to the stream, or a stack of experts' matrices. embedding: looked up by token
    (value embeddings too). head: from the stream to scores. scalar: norms, biases, scalars of the stream, and the
    thin matrices of LoRA: an orthogonal step would be as long in the directions they don't need.
    """
    if parameter.dim() < 2 or "_scalars" in name or "lambdas" in name or ".lora_" in name:
        return "scalar"
    if "embed" in name:
        return "embedding"
    return "head" if "lm_head" in name or "score" in name else "hidden"


def by_role(named_parameters: NamedParameters) -> dict[ParameterRole, list[nn.Parameter]]:
    """All trained parameters in their order, by role; roles without a parameter are empty."""
    parameters: dict[ParameterRole, list[nn.Parameter]] = {kind: [] for kind in get_args(ParameterRole)}
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            parameters[role_of(name, parameter)].append(parameter)
    return parameters


def decay_of(given: Decay, rate: float, batch_tokens: int, tokens: int) -> float:
    """The given weight decay, or the rule's; 0 by rule where the number of tokens isn't known (0)."""
    if given != "auto":
        return given
    return scaling.weight_decay(rate, batch_tokens, tokens) if tokens else 0.0
