"""Activation checkpointing: a layer's activations are recomputed in the backward pass instead of being kept.

in:  a decoder, and `runtime.activation_checkpointing`
out: the same decoder with the same gradients, whose layers keep less between forward and backward

none keeps all activations; full keeps a layer's input (Chen et al. 2016, https://arxiv.org/abs/1604.06174); selective
keeps the results of large matrix products and of attention, which are expensive to compute and cheap to keep
(Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from groundup.core.runtime import ActivationCheckpointing
from groundup.model.decoder import Decoder
from groundup.model.layers import Layer, LayerOutput, no_checkpointing

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
"""Operators whose results `selective` keeps: products with weights, and fused attention. Not bmm, with which attention
is written plainly: its scores grow with the square of the sequence length."""

Compute = Callable[..., LayerOutput]


def recompute_fully(compute: Compute, *arguments: Any) -> LayerOutput:
    """Call `compute` and keep only its arguments for the backward pass."""
    if not torch.is_grad_enabled():
        return compute(*arguments)
    return cast(LayerOutput, checkpoint(compute, *arguments, use_reentrant=False, preserve_rng_state=False))


def recompute_selectively(compute: Compute, *arguments: Any) -> LayerOutput:
    """Call `compute` and keep its arguments and the results of `KEPT` for the backward pass."""
    if not torch.is_grad_enabled():
        return compute(*arguments)
    contexts = partial(create_selective_checkpoint_contexts, _policy)
    return cast(
        LayerOutput,
        checkpoint(compute, *arguments, use_reentrant=False, preserve_rng_state=False, context_fn=contexts),
    )


WAYS: dict[ActivationCheckpointing, Callable[..., LayerOutput]] = {
    "none": no_checkpointing,
    "selective": recompute_selectively,
    "full": recompute_fully,
}


def checkpoint_activations(model: Decoder, checkpointing: ActivationCheckpointing) -> None:
    """Set the activation checkpointing of all layers; before they are compiled. Parameter names stay."""
    for layer in model.model.layers:
        cast(Layer, layer).checkpointing = WAYS[checkpointing]


def _policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in KEPT else CheckpointPolicy.PREFER_RECOMPUTE
