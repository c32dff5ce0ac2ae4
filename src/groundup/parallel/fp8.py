"""fp8 matrix products: about twice the rate of bf16 on GPUs that have them.

in:  a decoder
out: the same decoder with the same fp32 parameters, whose inner layers multiply in fp8 in training steps

Micikevicius et al. 2022, https://arxiv.org/abs/2209.05433: weights and activations in e4m3 (3 bits of mantissa),
gradients in e5m2 (more range). Every tensor is divided by a scale of its own, computed from its largest absolute value
at every step, so that it fills the format's range. Products are accumulated in fp32 and returned in the dtype of x.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.core.errors import GroundupError
from groundup.model.decoder import Decoder
from groundup.model.linear import Linear, LinearMap, LinearOp, ops_of, wrap, wrap_product

ALIGNMENT = 16
"""Both sides of a matrix, and the tokens of a micro-batch, must be multiples of this."""
CAPABILITY = (8, 9)
"""CUDA compute capability from which tensor cores multiply fp8."""

Quantized = tuple[Tensor, Float[Tensor, ""]]
"""(numbers in fp8, the fp32 scale to multiply them with)"""


def quantized(x: Float[Tensor, "rows columns"], dtype: torch.dtype) -> Quantized:
    """x in fp8 and its scale: the largest absolute value becomes the largest of `dtype`."""
    top = torch.finfo(dtype).max
    scale = x.abs().amax().float().clamp(min=1e-12) / top
    return (x.float() / scale).clamp(-top, top).to(dtype), scale


def _product(
    a: Quantized, b: Quantized, dtype: torch.dtype, fast: bool = False
) -> Float[Tensor, "rows columns"]:
    """a [rows, inner] times the transpose of b [columns, inner], in `dtype`.

    fast: accumulate with fewer bits, as is usual for the forward pass only.
    """
    # The kernel needs its second matrix column-major: the transpose of a contiguous one.
    product: Tensor = torch._scaled_mm(
        a[0].contiguous(),
        b[0].contiguous().t(),
        scale_a=a[1],
        scale_b=b[1],
        out_dtype=dtype,
        use_fast_accum=fast,
    )
    return product


class _Fp8Product(torch.autograd.Function):
    """x W^T and both gradients, one fp8 product each. Keeps x and W in fp8 for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "rows inner"], weight: Float[Tensor, "outer inner"]) -> Tensor:
        small_x, small_weight = quantized(x, torch.float8_e4m3fn), quantized(weight, torch.float8_e4m3fn)
        ctx.save_for_backward(*small_x, *small_weight)
        ctx.weight_dtype = weight.dtype
        return _product(small_x, small_weight, x.dtype, fast=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None]:
        x, scale_x, weight, scale_weight = ctx.saved_tensors
        grad, scale = quantized(grads[0], torch.float8_e5m2)
        dtype = grads[0].dtype
        d_x = _product((grad, scale), (weight.t(), scale_weight), dtype)
        if not ctx.needs_input_grad[1]:
            return d_x, None
        d_weight = _product((grad.t(), scale), (x.t(), scale_x), dtype)
        return d_x, d_weight.to(ctx.weight_dtype)


@dataclass(frozen=True)
class Fp8Op:
    """Multiplies in fp8 in training steps; without gradients uses `inner`, so that scores don't depend on the GPU."""

    inner: LinearOp
    joint: bool = False

    def __call__(self, x: Tensor, *maps: LinearMap) -> tuple[Tensor, ...]:
        if not torch.is_grad_enabled():
            return self.inner(x, *maps)
        rows = x.flatten(0, -2)
        if rows.shape[0] % ALIGNMENT:
            raise GroundupError(
                f'precision = "fp8" needs micro-batches of a multiple of {ALIGNMENT} tokens, got {rows.shape[0]}. '
                f"Set tokenize.seq_len to a multiple of {ALIGNMENT}"
            )
        return tuple(self._multiply(rows, weight, bias).view(*x.shape[:-1], -1) for weight, bias in maps)

    def _multiply(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        product: Tensor = _Fp8Product.apply(rows, weight)  # type: ignore[no-untyped-call]
        return product if bias is None else product + bias.to(product.dtype)


def use_fp8(model: Decoder) -> None:
    """Let the matrices of all layers but the first and the last multiply in fp8.

    Embedding, head, first and last layer lose most from rounding. Matrices whose sides aren't multiples of 16, low-rank
    adapters, routers and experts stay in the compute dtype. Raises GroundupError where no matrix is left.
    """
    linears = [
        linear for layer in list(model.model.layers)[1:-1] for linear in _multipliable(layer.modules())
    ]
    if not linears:
        raise GroundupError(
            f'precision = "fp8": this decoder has no matrix for it. It needs 3 layers and sides that are multiples of '
            f'{ALIGNMENT} (d_model, d_ff, heads x head_dim). Use "auto"'
        )
    wrap(linears, lambda op: wrap_product(op, Fp8Op))


def is_fp8(linear: Linear) -> bool:
    """Whether a linear map multiplies in fp8 in training steps."""
    return any(isinstance(op, Fp8Op) for op in ops_of(linear.op))


def aligned(weight: Tensor) -> bool:
    """Whether fp8 kernels multiply a matrix of this shape."""
    return all(side % ALIGNMENT == 0 for side in weight.shape)


def _multipliable(modules: Any) -> Sequence[Linear]:
    linears = [module for module in modules if isinstance(module, Linear)]
    return [linear for linear in linears if linear.quantizable and aligned(linear.weight)]
