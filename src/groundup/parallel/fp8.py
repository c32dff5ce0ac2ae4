"""Matrix products in 8 bits: about twice the rate of bf16 on GPUs that have them.

in:  a decoder
out: the same decoder with the same fp32 parameters, whose inner layers multiply in fp8 while they train

Micikevicius et al. 2022, https://arxiv.org/abs/2209.05433: weights and activations in e4m3 (3 bits of mantissa),
gradients in e5m2 (more range). Every tensor is divided by a scale of its own, taken from its largest number at
every step, so that it fills the format's range. Products add up in fp32 and come out in the dtype of x.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.core.errors import GroundupError
from groundup.model.decoder import Decoder
from groundup.model.layers import Linear

ALIGNED = 16
"""Both sides of a product must be a multiple of this."""
CAPABILITY = (8, 9)
"""CUDA capability from which tensor cores multiply fp8."""

Quantized = tuple[Tensor, Float[Tensor, ""]]
"""Numbers in fp8, and the fp32 scale they are to be multiplied with."""


def quantized(x: Float[Tensor, "rows columns"], dtype: torch.dtype) -> Quantized:
    """x as fp8 and one scale: the largest number becomes the largest of `dtype`."""
    top = torch.finfo(dtype).max
    scale = x.abs().amax().float().clamp(min=1e-12) / top
    return (x.float() / scale).clamp(-top, top).to(dtype), scale


def _product(
    a: Quantized, b: Quantized, dtype: torch.dtype, fast: bool = False
) -> Float[Tensor, "rows columns"]:
    """a [rows, inner] times the transpose of b [columns, inner], in `dtype`.

    fast: with fewer bits in the running sums, as is usual for the forward pass only.
    """
    # The kernel wants its second matrix column by column: that's the transpose of a contiguous one.
    out: Tensor = torch._scaled_mm(
        a[0].contiguous(),
        b[0].contiguous().t(),
        scale_a=a[1],
        scale_b=b[1],
        out_dtype=dtype,
        use_fast_accum=fast,
    )
    return out


class _Fp8Product(torch.autograd.Function):
    """x W^T, and both gradients, each as one fp8 product. Keeps x and W in fp8."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "rows inner"], weight: Float[Tensor, "outer inner"]) -> Tensor:
        small_x, small_weight = quantized(x, torch.float8_e4m3fn), quantized(weight, torch.float8_e4m3fn)
        ctx.save_for_backward(*small_x, *small_weight)
        ctx.weight_dtype = weight.dtype
        return _product(small_x, small_weight, x.dtype, fast=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, scale_x, weight, scale_weight = ctx.saved_tensors
        grad, scale = quantized(grads[0], torch.float8_e5m2)
        dtype = grads[0].dtype
        d_x = _product((grad, scale), (weight.t(), scale_weight), dtype)
        d_weight = _product((grad.t(), scale), (x.t(), scale_x), dtype)
        return d_x, d_weight.to(ctx.weight_dtype)


class Fp8Linear(Linear):
    """Multiplies in fp8 in training steps, like `Linear` elsewhere: a score is not to depend on the GPU's kind."""

    def forward(self, x: Float[Tensor, "*axes inner"]) -> Float[Tensor, "*axes outer"]:
        if not torch.is_grad_enabled():
            return super().forward(x)
        rows = x.flatten(0, -2)
        if rows.shape[0] % ALIGNED:
            raise GroundupError(
                f'precision = "fp8" needs micro-batches of a multiple of {ALIGNED} tokens, not {rows.shape[0]}. '
                f"Choose a multiple of {ALIGNED} as tokenize.seq_len"
            )
        out: Tensor = _Fp8Product.apply(rows, self.weight)  # type: ignore[no-untyped-call]
        if self.bias is not None:
            out = out + self.bias.to(out.dtype)
        return out.view(*x.shape[:-1], -1)


def use_fp8(model: Decoder) -> None:
    """Let the inner layers train in fp8. Embedding, head, the first and the last layer stay as they are.

    Those hurt most when rounded. Matrices whose sides aren't multiples of 16 stay too, and so does everything
    that isn't a plain `Linear`. Parameters are the same objects under the same names.
    """
    for linear in _swappable(model):
        # Another class for the same object: what refers to it, or to its parameters, stays right.
        linear.__class__ = Fp8Linear


def _swappable(model: Decoder) -> Iterator[nn.Module]:
    for layer in list(model.model.layers)[1:-1]:
        for part in layer.modules():
            if type(part) is Linear and all(side % ALIGNED == 0 for side in part.weight.shape):
                yield part
