"""Muon's step on stacks: matrices of one shape are one batched product instead of a product each.

in:  gradients of hidden matrices; a learning rate per group
out: the matrices, moved; their momentum and, with NorMuon, the mean square of each neuron's update

What a matrix remembers lies in `state` under its own name, as a view into its stack, so that states are saved and
restored per parameter. Matrices of the same shape share a stack; experts [experts, out, in] are as many matrices.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.parallel.matrix_redistribute import MatrixRedistribution
from groundup.parallel.shard import as_dtensor_like, local, shard_count
from groundup.train.optimizers._orthogonal import Coefficients, orthogonal

UPDATE_RMS = 0.2
"""Root mean square of an update at rate 1: about AdamW's, so both share one range of rates (Liu et al. 2025)."""
STACK_NUMBERS = {"cpu": 2**20, "cuda": 2**28}
"""Most numbers of a rank's own in a stack: what a CPU's caches hold, what a GPU's memory can spare several times."""


@dataclass(frozen=True)
class Rules:
    """What the step of a matrix is made of; see the fields of `Muon`."""

    momentum: float
    weight_decay: float
    normuon_beta2: float
    """memory of a neuron's mean square; 0 = neurons aren't scaled"""
    coefficients: Coefficients
    dtype: torch.dtype
    """of the products"""


def direction(
    momentum: Float[Tensor, "matrices rows columns"],
    neurons: Float[Tensor, "matrices rows 1"],
    rules: Rules,
    owners: MatrixRedistribution | None = None,
) -> Float[Tensor, "matrices rows columns"]:
    """What is taken off the weights at rate 1: the momentum's orthogonal factor at a root mean square of UPDATE_RMS.

    With NorMuon (Li et al. 2025, https://arxiv.org/abs/2510.05491) each row is divided by the root of its mean square,
    remembered over steps in `neurons`, which is updated; then all of it is brought to the size it would have without.

    owners: who computes which of the matrices that ranks share; momentum and result are then this rank's parts of them,
    and `neurons` of all rows.
    """
    if owners is None:
        update = orthogonal(momentum, rules.coefficients, rules.dtype).float()
        return update.mul_(_scale(update.shape, _squares(update), neurons, rules))
    whole = orthogonal(owners.to_owners(momentum.to(rules.dtype)), rules.coefficients, rules.dtype)
    squares = owners.all_gather(_squares(whole.float()), len(momentum))
    local_update = owners.from_owners(whole, len(momentum)).float()
    return local_update.mul_(owners.local_rows(_scale(whole.shape, squares, neurons, rules)))


def _squares(update: Float[Tensor, "matrices rows columns"]) -> Float[Tensor, "matrices rows 1"]:
    """The mean square of every row."""
    lengths: Tensor = torch.linalg.vector_norm(update, dim=-1, keepdim=True)
    return lengths.square_().div_(update.shape[-1])


def _scale(
    shape: torch.Size,
    squares: Float[Tensor, "matrices rows 1"],
    neurons: Float[Tensor, "matrices rows 1"],
    rules: Rules,
) -> Float[Tensor, "matrices rows 1"]:
    """What brings rows of orthogonal factors of this shape to UPDATE_RMS, each by itself where neurons are scaled."""
    if not rules.normuon_beta2:
        return torch.full_like(squares, UPDATE_RMS * max(shape[-2:]) ** 0.5)
    neurons.lerp_(squares, 1 - rules.normuon_beta2)
    scale = neurons.sqrt().clamp_(min=1e-10).reciprocal_()
    size = (squares * scale.square()).mean(dim=-2, keepdim=True).sqrt()
    return scale.mul_(UPDATE_RMS / size.clamp_(min=1e-10))


class MatrixOptimizer(torch.optim.Optimizer):
    """Muon over hidden matrices [out, in] and stacks of experts [experts, out, in].

    The momentum is an exponential mean, looked ahead by one step (Nesterov). Decay takes off rate x weight_decay x
    weight. A parameter without a gradient counts as one with a zero gradient.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float, rules: Rules) -> None:
        super().__init__(parameters, {"lr": lr})
        self._rules = rules
        self._stacks: list[_Stack] = []

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore; the restored tensors are copied into stacks at the next step."""
        super().load_state_dict(state_dict)
        self.forget_stacks()

    def forget_stacks(self) -> None:
        """Rebuild the stacks from `state` at the next step; call after replacing `state`."""
        self._stacks = []

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of all matrices. On CUDA nothing here waits for the device."""
        self._stacks = self._stacks or self._stacked()
        for stack in self._stacks:
            rules, parameters = self._rules, stack.parameters
            gradients = _gather(
                [torch.zeros_like(local(p)) if p.grad is None else local(p.grad) for p in parameters]
            )
            stack.momentum.lerp_(gradients, 1 - rules.momentum)
            ahead = gradients.lerp_(stack.momentum, rules.momentum)
            update = direction(ahead, stack.neurons, rules, stack.owners)
            weights, rate = [local(p.data) for p in parameters], stack.group["lr"]
            if rules.weight_decay:
                torch._foreach_mul_(weights, 1 - rate * rules.weight_decay)
            torch._foreach_add_(weights, stack.parts(update), alpha=-rate)

    def _stacked(self) -> list["_Stack"]:
        stacks = []
        for group in self.param_groups:
            alike: dict[tuple[Any, ...], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                key = (parameter.device, *parameter.shape[-2:], *getattr(parameter, "placements", ()))
                alike.setdefault(key, []).append(parameter)
            stacks += [_Stack(group, part, self.state) for same in alike.values() for part in _portions(same)]
        return stacks


class _Stack:
    """Parameters whose matrices have one shape, and what is remembered of them: one tensor [matrices, ...] each."""

    def __init__(self, group: dict[str, Any], parameters: list[nn.Parameter], state: Any) -> None:
        self.group, self.parameters = group, parameters
        self.owners = MatrixRedistribution.of(parameters[0])
        """None where a matrix lies whole on its rank"""
        self._states: list[dict[str, Any]] = [state[parameter] for parameter in parameters]
        for parameter, values in zip(parameters, self._states, strict=True):
            if not values:
                values["momentum"] = torch.zeros_like(parameter)
                values["neurons"] = self._no_neurons(parameter)
        self.momentum = _gather([local(values["momentum"]) for values in self._states])
        self.neurons = _gather([local(values["neurons"]) for values in self._states])
        for name, stack in (("momentum", self.momentum), ("neurons", self.neurons)):
            for values, part in zip(self._states, self.parts(stack), strict=True):
                values[name] = as_dtensor_like(values[name], part)

    def _no_neurons(self, parameter: nn.Parameter) -> Tensor:
        """Zeros, one per row: of all rows on every rank where rows are sharded, since a matrix is scaled as a whole."""
        if self.owners is None:
            return torch.zeros_like(parameter[..., :1])
        return torch.zeros((*parameter.shape[:-1], 1), device=local(parameter).device)

    def parts(self, stack: Float[Tensor, "matrices rows columns"]) -> list[Tensor]:
        """Every parameter's share, in its own shape: views."""
        leading = [local(parameter).shape[:-2] for parameter in self.parameters]
        shares = zip(leading, torch.split(stack, [shape.numel() for shape in leading]), strict=True)
        return [part.view(*shape, *part.shape[-2:]) for shape, part in shares]


def _portions(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """The parameters in their order, STACK_NUMBERS of this rank's at a time; a larger one alone."""
    most = STACK_NUMBERS[parameters[0].device.type]
    portion: list[nn.Parameter] = []
    for parameter in parameters:
        held = sum(p.numel() // shard_count(p) for p in (*portion, parameter))
        if portion and held > most:
            yield portion
            portion = []
        portion.append(parameter)
    yield portion


def _gather(tensors: list[Tensor]) -> Float[Tensor, "matrices rows columns"]:
    """A copy of all matrices in one tensor."""
    return torch.cat([tensor.reshape(-1, *tensor.shape[-2:]) for tensor in tensors])
