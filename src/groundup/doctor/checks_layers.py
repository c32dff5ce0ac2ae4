"""Checks of the decoder's layers: masks, attention kernels, RoPE, norms, projections, feed-forward, fp8.

in:  a `CheckContext`
out: differences

Every kernel is also run with huge values at masked positions, which exposes masks that only make them unlikely.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import cast

import torch
from torch import Tensor

from groundup.doctor import reference
from groundup.doctor.check import Check, CheckContext, Difference, compare, equal, normal, short
from groundup.doctor.toy_models import (
    CONFIGS,
    QWEN3,
    decoder,
    document_segments,
    random_ids,
    set_distinct_weights,
    weights_of,
)
from groundup.model import attention, grouped_gemm, layers, linear, rotary
from groundup.model.config import RopeScaling
from groundup.model.decoder import Decoder
from groundup.parallel import cpu, fp8, hardware

WINDOWS = (0, 5)
ROUNDINGS = 16
"""Consecutive fp32 roundings: a product of short vectors, a softmax or norm, another product."""
LOW_ROUNDINGS = 4
"""Consecutive roundings of a lower dtype: scores, softmax weights, product with the values, and their gradients."""
ANGLE_ROUNDINGS = 4
"""Roundings of a rotary frequency, before the product with the position."""
FAR, PAIRS = 512, 12
SCALINGS = (
    RopeScaling(kind="linear", factor=4),
    RopeScaling(kind="llama3", factor=8, original_max_seq_len=64),
    RopeScaling(kind="yarn", factor=4, original_max_seq_len=128, beta_fast=8),
    RopeScaling(kind="yarn", factor=4, original_max_seq_len=128, attention_factor=0.7, truncate=False),
    RopeScaling(
        kind="longrope", factor=4, original_max_seq_len=128,
        short_factor=(1.0,) * PAIRS, long_factor=tuple(1 + i / 4 for i in range(PAIRS)),
    ),
    RopeScaling(
        kind="longrope", factor=4, original_max_seq_len=FAR,
        short_factor=tuple(1 + i / 8 for i in range(PAIRS)), long_factor=(9.0,) * PAIRS,
    ),
)  # fmt: skip
HUGE = 2.0**60


def _roundings(dtype: torch.dtype) -> int:
    return ROUNDINGS if dtype == torch.float32 else LOW_ROUNDINGS


def _check_masks(context: CheckContext) -> Iterator[Difference]:
    segments = document_segments(4, 23)
    for window in WINDOWS:
        want = reference.attention_mask(segments.tolist(), window)
        got = attention.document_mask(segments.to(context.device), window)[:, 0]
        yield equal(f"document_mask, window {window}", got, want)
        whole = reference.attention_mask([[0] * 23], window)
        yield equal(
            f"causal_mask, window {window}", attention.causal_mask(23, context.device, window)[0], whole
        )
    counted = attention.document_positions(segments.to(context.device))
    yield equal("document_positions", counted, reference.document_positions(segments.tolist()))
    bos, pad = 7, 9
    ids = torch.tensor([[7, 1, 2, 7, 3, 7, 7, 9, 9], [4, 5, 7, 1, 9, 9, 9, 9, 9]], device=context.device)
    want = torch.tensor([[1, 1, 1, 2, 2, 3, 4, -1, -1], [0, 0, 1, 1, -1, -1, -1, -1, -1]])
    yield equal("segments_of", attention.segments_of(ids, bos, pad), want)


def _check_kernel(
    context: CheckContext, kernel: attention.AttentionKernel, dtypes: Sequence[torch.dtype]
) -> Iterator[Difference]:
    """Values, gradients and poisoned positions; multi-head and grouped-query; with and without a window.

    Outputs at padding are undefined and not compared.
    """
    rows, time, dim = 3, 29, 16
    segments = document_segments(rows, time)
    real = (segments >= 0)[:, :, None, None].double()
    for (heads, kv_heads), window in product(((4, 4), (6, 2)), WINDOWS):
        shapes = ((heads, 1), (kv_heads, 2), (kv_heads, 3))
        wide = [normal(seed, rows, time, count, dim).requires_grad_() for count, seed in shapes]
        mask = reference.attention_mask(segments.tolist(), window)
        want = reference.attend(wide[0], wide[1], wide[2], mask) * real
        upstream = normal(4, rows, time, heads, dim) * real
        wanted = torch.autograd.grad(want, wide, upstream)
        what = f"{kernel.name}, {heads} heads, {kv_heads} for keys, window {window}"
        for dtype in dtypes:
            q, k, v = (x.detach().transpose(1, 2).to(context.device, dtype).requires_grad_() for x in wide)
            attended = kernel.attend(
                q, k, v, kernel.make_mask(segments.to(context.device), window)
            ).transpose(1, 2)
            got = attended * real.to(attended)
            yield compare(what, got, want, _roundings(dtype), dtype)
            gradients = torch.autograd.grad(got, (q, k, v), upstream.to(got))
            for part, ours, plain in zip("qkv", gradients, wanted, strict=True):
                allowed = _roundings(dtype)
                yield compare(f"{what}: gradient of {part}", ours.transpose(1, 2), plain, allowed, dtype)
    yield from _check_poison(context, kernel, dtypes)


def _check_poison(
    context: CheckContext, kernel: attention.AttentionKernel, dtypes: Sequence[torch.dtype]
) -> Iterator[Difference]:
    """Huge keys and values in the first document, the future and padding don't change the second document."""
    time, start, end = 24, 9, 17
    segments = torch.tensor([[0] * start + [1] * (end - start) + [2] * 4 + [-1] * 3], dtype=torch.int32)
    mask = kernel.make_mask(segments.to(context.device), 0)
    for dtype in dtypes:
        q, k, v = (normal(seed, 1, 2, time, 16).to(context.device, dtype) for seed in (5, 6, 7))
        clean = kernel.attend(q, k, v, mask)[:, :, start:end]
        k[:, :, :start], v[:, :, :start] = HUGE, HUGE
        k[:, :, end:], v[:, :, end:] = HUGE, -HUGE
        got = kernel.attend(q, k, v, mask)[:, :, start:end]
        yield equal(f"{kernel.name}, other documents poisoned, {short(dtype)}", got, clean)


def _check_fused(context: CheckContext) -> Iterator[Difference]:
    yield from _check_kernel(context, attention.FUSED, context.dtypes)
    plain = attention.AttentionKernel("attend_fused", attention.document_mask, attention.attend_fused)
    yield from _check_kernel(context, plain, context.dtypes)


def _check_blocks(context: CheckContext) -> Iterator[Difference]:
    yield from _check_kernel(context, cpu.BLOCKS, context.dtypes)
    for count in (1, 5):
        attend = partial(cpu.attend_blocks, blocks=count)
        kernel = attention.AttentionKernel(f"{count} blocks", cpu.document_mask_bf16, attend)
        yield from _check_kernel(context, kernel, context.dtypes)


def _check_selected(context: CheckContext) -> Iterator[Difference]:
    """The attention kernel and dtype that training uses on this hardware."""
    model = Decoder(QWEN3)
    hardware.prepare_model(model, context.hardware)
    yield from _check_kernel(context, model.kernel, [context.hardware.dtype])


def _check_rotary(context: CheckContext) -> Iterator[Difference]:
    """RoPE angles at near and far positions, with every scaling, and the rotation."""
    dim, theta = 2 * PAIRS, 500.0
    positions = torch.tensor([[0, 1, 2, 3, 100, FAR - 1], [FAR // 2, 7, 5, 3, 1, 0]])
    x = normal(8, 2, 6, 3, dim)
    one = torch.zeros(1, 6, 1, dim, dtype=torch.float64)
    one[..., :PAIRS] = 1
    for scaling in (None, *SCALINGS):
        what = "plain" if scaling is None else scaling.kind
        cos, sin = rotary.rope_cos_sin(positions.to(context.device), dim, theta, scaling)
        allowed = ANGLE_ROUNDINGS * FAR
        for row in range(2):
            # longrope chooses its factors by the largest position of all rows.
            places = torch.cat((positions[row], positions.max()[None]))
            unit = torch.cat((one, one[:, :1]), dim=1)
            angle = reference.rotated(unit, places, theta, scaling)[0, :-1, 0]
            yield compare(f"{what} RoPE: cosine", cos[row, 0], angle[:, :PAIRS], allowed)
            yield compare(f"{what} RoPE: sine", sin[row, 0], angle[:, PAIRS:], allowed)
    cos, sin = rotary.rope_cos_sin(positions.to(context.device), dim, theta)
    want = torch.stack([reference.rotated(x[row : row + 1], positions[row], theta)[0] for row in range(2)])
    for dtype in context.dtypes:
        got = rotary.apply_rope(x.transpose(1, 2).to(context.device, dtype), cos, sin).transpose(1, 2)
        yield compare("rotate", got, want, allowed if dtype == torch.float32 else 1, dtype)


def _check_norms(context: CheckContext) -> Iterator[Difference]:
    for kind in ("rms", "layer"):
        config = replace(QWEN3, norm=kind, norm_eps=1e-2)
        module = layers.norm(config, 24)
        set_distinct_weights(module)
        weights = {f"n.{name}": weight for name, weight in weights_of(module).items()}
        wide, upstream = normal(9, 2, 5, 24).requires_grad_(), normal(11, 2, 5, 24)
        want = reference.norm(weights, "n", config, wide)
        wanted = torch.autograd.grad(want, (wide, *weights.values()), upstream)
        module.to(context.device)
        for dtype in context.dtypes:
            x = wide.detach().to(context.device, dtype).requires_grad_()
            got = module(x)
            yield compare(f"{kind} norm", got, want, _roundings(dtype), dtype)
            gradients = torch.autograd.grad(got, (x, *module.parameters()), upstream.to(got))
            for part, ours, plain in zip(("input", *weights), gradients, wanted, strict=True):
                yield compare(f"{kind} norm: gradient of {part}", ours, plain, _roundings(dtype), dtype)
            if kind == "rms":
                alone = layers.rms_norm(x, cast(Tensor, module.weight), config.norm_eps)
                yield compare("rms_norm", alone, want, _roundings(dtype), dtype)


def _check_products(context: CheckContext) -> Iterator[Difference]:
    """Several projections of one input, separate and stacked."""
    x = normal(12, 2, 5, 24)
    for biased in (False, True):
        projections = [linear.Linear(24, outer, bias=biased) for outer in (7, 11, 7)]
        for seed, projection in enumerate(projections):
            set_distinct_weights(projection, seed)
        want = [
            reference.product(
                {f"p.{name}": weight for name, weight in weights_of(projection).items()}, "p", x
            )
            for projection in projections
        ]
        for projection in projections:
            projection.to(context.device)
        for dtype in context.dtypes:
            inputs = x.to(context.device, dtype)
            for name, op in (("separate", linear.PLAIN), ("stacked", cpu.STACKED)):
                for projection in projections:
                    projection.op = op
                for ours, plain in zip(linear.project(inputs, *projections), want, strict=True):
                    yield compare(f"projections, {name}", ours, plain, _roundings(dtype), dtype)


def _check_feed_forward(context: CheckContext) -> Iterator[Difference]:
    stream = normal(15, 2, 5, QWEN3.d_model)
    for name, config in CONFIGS.items():
        feed = layers.feed_forward(config)
        set_distinct_weights(feed)
        weights = {f"mlp.{part}": weight for part, weight in weights_of(feed).items()}
        want = reference.feed_forward(weights, config, stream)
        feed.to(context.device)
        for dtype in context.dtypes:
            output = feed(stream.to(context.device, dtype))
            got = output[0] if config.moe else output
            yield compare(f"{name}: feed-forward", got, want, _roundings(dtype), dtype)


def _check_groups(context: CheckContext) -> Iterator[Difference]:
    """Tokens sorted by expert, one expert without tokens; sizes with and without a fast kernel."""
    counts = (3, 0, 6, 1)
    ends = torch.tensor(counts).cumsum(0)
    for inner, outer in ((16, 8), (10, 6)):
        rows, matrices = normal(18, 10, inner), normal(19, len(counts), outer, inner)
        wide = [rows.requires_grad_(), matrices.requires_grad_()]
        groups = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        want, upstream = torch.einsum("ri,roi->ro", rows, matrices[groups]), normal(20, 10, outer)
        wanted = torch.autograd.grad(want, wide, upstream)
        for dtype in context.dtypes:
            inputs = [x.detach().to(context.device, dtype).requires_grad_() for x in wide]
            got = grouped_gemm.grouped_product(inputs[0], inputs[1], ends.int().to(context.device))
            yield compare(f"grouped product, {inner} x {outer}", got, want, _roundings(dtype), dtype)
            gradients = torch.autograd.grad(got, inputs, upstream.to(got))
            for part, ours, plain in zip(("rows", "matrices"), gradients, wanted, strict=True):
                yield compare(f"grouped product: gradient of {part}", ours, plain, _roundings(dtype), dtype)


def _check_fp8(context: CheckContext) -> Iterator[Difference]:
    """Quantization to fp8, which layers use it, and the fp8 product where the hardware supports it."""
    x, weight = normal(21, 32, 64, scale=3.0), normal(22, 48, 64)
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        small, scale = fp8.quantized(x.float().to(context.device), dtype)
        yield compare("quantized", small.float() * scale, x, 1, dtype)
    model, ids = decoder(QWEN3, context), random_ids(1, 16).to(context.device)
    with torch.no_grad():
        want = model(ids)
        fp8.use_fp8(model)
        yield equal("evaluation doesn't use fp8", model(ids), want)
    swapped = {
        name for name, part in model.named_modules() if isinstance(part, linear.Linear) and fp8.is_fp8(part)
    }
    inner = {name for name, part in model.named_modules() if ".layers.1." in name and name.endswith("_proj")}
    yield equal("fp8 layers", swapped, inner)
    cuda = context.device.type == "cuda"
    if cuda and torch.cuda.get_device_capability(context.device) >= fp8.CAPABILITY:
        product = linear.Linear(64, 48, bias=False)
        with torch.no_grad():
            product.weight.copy_(weight)
        product.to(context.device).op = fp8.Fp8Op(linear.PLAIN)
        got = product(x.to(context.device, torch.bfloat16))
        yield compare("fp8 product", got, torch.einsum("ri,oi->ro", x, weight), 1, torch.float8_e4m3fn)


def _check_attention_layer(context: CheckContext) -> Iterator[Difference]:
    """The attention layer: projections, QK norm, RoPE, heads, output."""
    segments = document_segments(3, 21)
    for name, config in CONFIGS.items():
        layer = layers.Attention(config, config.n_layers - 1)
        set_distinct_weights(layer)
        x = normal(16, 3, 21, config.d_model)
        embedded = normal(17, 3, 21, config.n_kv_heads * config.head_dim)
        value_embedding = embedded if config.value_embeddings else None
        weights = {f"self_attn.{part}": weight for part, weight in weights_of(layer).items()}
        want = reference.attention(
            weights, config, x, reference.attention_mask(segments.tolist()), value_embedding
        )
        layer.to(context.device)
        places = torch.arange(21, device=context.device)[None]
        cos_sin = (
            rotary.rope_cos_sin(places, config.head_dim, config.rope_theta)
            if config.positions == "rope"
            else None
        )
        mask = attention.FUSED.make_mask(segments.to(context.device), 0)
        for dtype in context.dtypes:
            embedded_low = None if value_embedding is None else value_embedding.to(context.device, dtype)
            got = layer(x.to(context.device, dtype), cos_sin, mask, None, embedded_low)
            yield compare(f"{name}: attention", got, want, 2 * _roundings(dtype), dtype)


CHECKS = [
    Check("layers: masks", "a position sees the future, another document, or padding", _check_masks),
    Check("layers: fused attention", "attention reads wrong positions", _check_fused),
    Check("layers: blockwise attention", "compiled attention reads wrong positions", _check_blocks),
    Check(
        "layers: selected attention",
        "this hardware's attention kernel reads wrong positions",
        _check_selected,
    ),
    Check("layers: rotary positions", "RoPE encodes wrong distances", _check_rotary),
    Check("layers: norms", "normalized activations have the wrong scale", _check_norms),
    Check("layers: projections", "matrix products are wrong or swapped", _check_products),
    Check("layers: feed-forward", "feed-forward layers compute wrong values", _check_feed_forward),
    Check("layers: grouped products", "experts process the wrong tokens", _check_groups),
    Check("layers: fp8", "fp8 quantization loses more precision than necessary", _check_fp8),
    Check("layers: attention", "heads are split, normed, rotated or joined wrongly", _check_attention_layer),
]
