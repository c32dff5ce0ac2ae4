"""Grouped matrix product: the rows of each expert times that expert's matrix.

in:  rows sorted by group, a stack of matrices, where each group ends
out: the products, in the same order

PyTorch has one kernel for all groups (`grouped_mm`), for bf16 and shapes whose rows are 16 bytes apart. For
everything else the groups are multiplied one by one, in a custom operator, since compiled code can't know the groups'
sizes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

ALIGNED = 8
"""bf16 numbers in 16 bytes."""


def grouped_product(
    rows: Float[Tensor, "rows inner"],
    matrices: Float[Tensor, "groups outer inner"],
    ends: Int[Tensor, " groups"],
) -> Float[Tensor, "rows outer"]:
    """rows[n] @ matrices[group of n].T; group g is rows ends[g-1]:ends[g] (int32)."""
    aligned = all(size % ALIGNED == 0 for size in matrices.shape[1:])
    if rows.dtype == torch.bfloat16 and aligned:
        return F.grouped_mm(rows, matrices.transpose(1, 2), offs=ends)
    product: Tensor = _one_by_one(rows, matrices, ends)
    return product


@torch.library.custom_op("groundup::grouped_product", mutates_args=())
def _one_by_one(rows: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
    parts = rows.tensor_split(ends[:-1].tolist())
    return torch.cat([part @ matrix.T for part, matrix in zip(parts, matrices, strict=True)])


@torch.library.custom_op("groundup::grouped_outer", mutates_args=())
def _outer(left: Tensor, right: Tensor, ends: Tensor) -> Tensor:
    """left[group].T @ right[group] of every group: the gradient of its matrix."""
    lefts, rights = (tensor.tensor_split(ends[:-1].tolist()) for tensor in (left, right))
    return torch.stack([a.T @ b for a, b in zip(lefts, rights, strict=True)])


@_one_by_one.register_fake
def _(rows: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
    return rows.new_empty(rows.shape[0], matrices.shape[1])


@_outer.register_fake
def _(left: Tensor, right: Tensor, ends: Tensor) -> Tensor:
    return left.new_empty(ends.shape[0], left.shape[1], right.shape[1])


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    rows, matrices, ends = ctx.saved_tensors
    return _one_by_one(grad, matrices.transpose(1, 2), ends), _outer(grad, rows, ends), None


_one_by_one.register_autograd(_backward, setup_context=_setup_context)
