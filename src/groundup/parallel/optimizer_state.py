"""Optimizer state by parameter names.

in:  a model and its optimizer
out: tensors and plain numbers by "<parameter>.<name>", which fit the same model on any number of ranks; and back
"""

from typing import Any

import torch
from torch import Tensor, nn


def optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State of an optimizer of `model`: tensors and plain numbers, by "<parameter>.<name>"."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            kind = tensors if isinstance(value, Tensor) else numbers
            kind[f"{names[parameter]}.{key}"] = value
    return tensors, numbers


def load_optimizer_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: dict[str, Tensor],
    numbers: dict[str, Any],
) -> None:
    """The inverse of `optimizer_state`. Learning rates and groups stay: they come from the recipe."""
    state: dict[int, dict[str, Any]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    index = {parameter: number for number, parameter in enumerate(parameters)}
    named = dict(model.named_parameters())
    for name, value in (tensors | numbers).items():
        about, _, key = name.rpartition(".")
        state.setdefault(index[named[about]], {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
