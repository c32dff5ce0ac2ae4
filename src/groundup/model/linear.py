"""Linear maps, and the one interface through which all of a layer's matrix products go.

in:  x [..., inner] and linear maps that share it, each a weight [outer, inner] and perhaps a bias [outer]
out: x W^T + b of each map, in the dtype of x

A `Linear` holds parameters and a `LinearOp`, which computes. Features wrap the op from outside: stacked products, fp8,
LoRA, tensor parallel. Each keeps the op it wraps, so that they compose, and no module changes its class.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LinearMap = tuple[Tensor, Tensor | None]
"""(weight [outer, inner], bias [outer] or None)"""


class LinearOp(Protocol):
    """One way to compute linear maps; a frozen dataclass. A wrapper has the op it wraps in the field `inner`."""

    @property
    def joint(self) -> bool:
        """Whether maps that share their input should be computed in one call."""
        ...

    def __call__(self, x: Tensor, *maps: LinearMap) -> tuple[Tensor, ...]:
        """x W^T + b of every map."""
        ...


Wrapper = Callable[[LinearOp], LinearOp]
"""An op -> the op that wraps it."""


@dataclass(frozen=True)
class PlainOp:
    """F.linear of each map, with the parameters cast to the dtype of x."""

    joint: bool = False

    def __call__(self, x: Tensor, *maps: LinearMap) -> tuple[Tensor, ...]:
        return tuple(
            F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
            for weight, bias in maps
        )


PLAIN = PlainOp()


class Linear(nn.Linear):
    """x W^T + b in the dtype of x, computed by `op`; the parameters stay fp32."""

    quantizable = True
    """whether fp8 may multiply it"""

    def __init__(
        self, inner: int, outer: int, bias: bool = True, device: torch.device | str | None = None
    ) -> None:
        super().__init__(inner, outer, bias, device)
        self.op: LinearOp = PLAIN

    @property
    def map(self) -> LinearMap:
        """The parameters."""
        return self.weight, self.bias

    def forward(self, x: Float[Tensor, "*axes inner"]) -> Float[Tensor, "*axes outer"]:
        return self.op(x, self.map)[0]


def project(x: Tensor, *linears: Linear) -> tuple[Tensor, ...]:
    """Each linear map of x; in one call where all maps have the same op and it is joint."""
    op = linears[0].op
    if op.joint and all(linear.op is op for linear in linears):
        return op(x, *(linear.map for linear in linears))
    return tuple(linear(x) for linear in linears)


def wrap(linears: Iterable[Linear], wrapper: Wrapper) -> None:
    """Wrap the ops of linear maps; maps that share an op share the wrapped one."""
    wrapped: dict[LinearOp, LinearOp] = {}
    for linear in linears:
        if linear.op not in wrapped:
            wrapped[linear.op] = wrapper(linear.op)
        linear.op = wrapped[linear.op]


def wrap_product(op: LinearOp, wrapper: Wrapper) -> LinearOp:
    """Wrap the matrix product itself, inside all wrappers of `op`."""
    inner: LinearOp | None = getattr(op, "inner", None)
    if inner is None:
        return wrapper(op)
    return replace(op, inner=wrap_product(inner, wrapper))  # type: ignore[type-var]


def ops_of(op: LinearOp) -> Iterable[LinearOp]:
    """The op and all that it wraps, from outside in."""
    current: LinearOp | None = op
    while current is not None:
        yield current
        current = getattr(current, "inner", None)
