"""Less memory for more arithmetic: a layer's inner results are computed again when the backward pass needs them.

in:  a decoder, and how much to compute again
out: the same decoder with the same gradients, whose layers keep less between forward and backward

Chen et al. 2016, https://arxiv.org/abs/1604.06174; choosing by operation as in Korthikanti et al. 2022,
https://arxiv.org/abs/2205.05198: results of large matrix products are dear to compute and cheap to keep.
"""

from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from groundup.core.runtime import ActivationCheckpointing
from groundup.model.decoder import Decoder
from groundup.model.layers import Layer

aten = torch.ops.aten
KEPT = frozenset(
    {
        aten.mm.default,
        aten.addmm.default,
        aten._scaled_mm.default,
        aten._grouped_mm.default,
        aten._scaled_dot_product_flash_attention.default,
        aten._scaled_dot_product_flash_attention_for_cpu.default,
        aten._scaled_dot_product_efficient_attention.default,
        aten._scaled_dot_product_cudnn_attention.default,
        torch.ops.higher_order.flex_attention,
    }
)
"""What `selective` keeps: products with weights and the outcome of fused attention. Attention written as plain
products (bmm) isn't here: its scores grow with the square of the length."""


class FullyRecomputed(Layer):
    """Keeps nothing but its input."""

    def forward(self, *args: Any) -> Any:
        if not torch.is_grad_enabled():
            return super().forward(*args)
        return checkpoint(super().forward, *args, use_reentrant=False, preserve_rng_state=False)


class SelectivelyRecomputed(Layer):
    """Keeps its input and the results in `KEPT`."""

    def forward(self, *args: Any) -> Any:
        if not torch.is_grad_enabled():
            return super().forward(*args)
        return checkpoint(
            super().forward,
            *args,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=partial(create_selective_checkpoint_contexts, _policy),
        )


KINDS: dict[ActivationCheckpointing, type[Layer]] = {
    "none": Layer,
    "selective": SelectivelyRecomputed,
    "full": FullyRecomputed,
}


def checkpoint_activations(model: Decoder, how: ActivationCheckpointing) -> None:
    """Set how much of every layer is computed again. Before compiling; names of parameters stay."""
    for layer in model.model.layers:
        # Another class for the same object: a wrapping module would rename every parameter.
        layer.__class__ = KINDS[how]


def _policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in KEPT else CheckpointPolicy.PREFER_RECOMPUTE
