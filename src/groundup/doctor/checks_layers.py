"""Checks of a decoder's pieces: masks, attention kernels, rotary positions, norm, products, feed-forward.

in:  a bench
out: differences

Every kernel is also run with huge values where nobody may look: a mask that only makes them unlikely shows then.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import cast

import torch
from torch import Tensor

from groundup.doctor import reference
from groundup.doctor.check import Check, CheckContext, Difference, compare, draw, equal, short
from groundup.doctor.toy_models import CONFIGS, QWEN3, decoder, documents, loud, texts, weights_of
from groundup.model import attention, grouped_gemm, layers, linear, rotary
from groundup.model.config import RopeScaling
from groundup.model.decoder import Decoder
from groundup.parallel import cpu, fp8, hardware

WINDOWS = (0, 5)
ROUNDINGS = 16
"""Of fp32, after each other: a product of short vectors, a softmax or norm, another product."""
LOW_ROUNDINGS = 4
"""Of a lower dtype: scores, weights of the softmax, the product with the values, and each one's gradient."""
TURN_ROUNDINGS = 4
"""Of a rotary angle, before it's multiplied by the position."""
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


def _check_masks(bench: CheckContext) -> Iterator[Difference]:
    segments = documents(4, 23)
    for window in WINDOWS:
        want = reference.may_see(segments.tolist(), window)
        got = attention.document_mask(segments.to(bench.device), window)[:, 0]
        yield equal(f"document_mask, window {window}", got, want)
        whole = reference.may_see([[0] * 23], window)
        yield equal(
            f"causal_mask, window {window}", attention.causal_mask(23, bench.device, window)[0], whole
        )
    counted = attention.document_positions(segments.to(bench.device))
    yield equal("document_positions", counted, reference.places(segments.tolist()))
    bos, pad = 7, 9
    ids = torch.tensor([[7, 1, 2, 7, 3, 7, 7, 9, 9], [4, 5, 7, 1, 9, 9, 9, 9, 9]], device=bench.device)
    want = torch.tensor([[1, 1, 1, 2, 2, 3, 4, -1, -1], [0, 0, 1, 1, -1, -1, -1, -1, -1]])
    yield equal("segments_of", attention.segments_of(ids, bos, pad), want)


def _check_kernel(
    bench: CheckContext, kernel: attention.AttentionKernel, dtypes: Sequence[torch.dtype]
) -> Iterator[Difference]:
    """Values, gradients and poison; as many key/value heads as query heads and fewer; with and without a window.

    What padding makes of padding is nobody's business, so it is left out.
    """
    rows, time, dim = 3, 29, 16
    segments = documents(rows, time)
    real = (segments >= 0)[:, :, None, None].double()
    for (heads, kv_heads), window in product(((4, 4), (6, 2)), WINDOWS):
        shapes = ((heads, 1), (kv_heads, 2), (kv_heads, 3))
        wide = [draw(seed, rows, time, count, dim).requires_grad_() for count, seed in shapes]
        mask = reference.may_see(segments.tolist(), window)
        want = reference.attend(wide[0], wide[1], wide[2], mask) * real
        upstream = draw(4, rows, time, heads, dim) * real
        wanted = torch.autograd.grad(want, wide, upstream)
        what = f"{kernel.name}, {heads} heads, {kv_heads} for keys, window {window}"
        for dtype in dtypes:
            q, k, v = (x.detach().transpose(1, 2).to(bench.device, dtype).requires_grad_() for x in wide)
            made = kernel.attend(q, k, v, kernel.make_mask(segments.to(bench.device), window)).transpose(1, 2)
            got = made * real.to(made)
            yield compare(what, got, want, _roundings(dtype), dtype)
            found = torch.autograd.grad(got, (q, k, v), upstream.to(got))
            for part, ours, plain in zip("qkv", found, wanted, strict=True):
                allowed = _roundings(dtype)
                yield compare(f"{what}: gradient of {part}", ours.transpose(1, 2), plain, allowed, dtype)
    yield from _check_poison(bench, kernel, dtypes)


def _check_poison(
    bench: CheckContext, kernel: attention.AttentionKernel, dtypes: Sequence[torch.dtype]
) -> Iterator[Difference]:
    """Huge keys and values in the first document, in the future and in padding change nothing in the second."""
    time, start, end = 24, 9, 17
    segments = torch.tensor([[0] * start + [1] * (end - start) + [2] * 4 + [-1] * 3], dtype=torch.int32)
    seen = kernel.make_mask(segments.to(bench.device), 0)
    for dtype in dtypes:
        q, k, v = (draw(seed, 1, 2, time, 16).to(bench.device, dtype) for seed in (5, 6, 7))
        clean = kernel.attend(q, k, v, seen)[:, :, start:end]
        k[:, :, :start], v[:, :, :start] = HUGE, HUGE
        k[:, :, end:], v[:, :, end:] = HUGE, -HUGE
        got = kernel.attend(q, k, v, seen)[:, :, start:end]
        yield equal(f"{kernel.name}, other documents poisoned, {short(dtype)}", got, clean)


def _check_fused(bench: CheckContext) -> Iterator[Difference]:
    yield from _check_kernel(bench, attention.FUSED, bench.dtypes)
    plain = attention.AttentionKernel("attend_fused", attention.document_mask, attention.attend_fused)
    yield from _check_kernel(bench, plain, bench.dtypes)


def _check_blocks(bench: CheckContext) -> Iterator[Difference]:
    yield from _check_kernel(bench, cpu.BLOCKS, bench.dtypes)
    for count in (1, 5):
        attend = partial(cpu.attend_blocks, blocks=count)
        kernel = attention.AttentionKernel(f"{count} blocks", cpu.document_mask_bf16, attend)
        yield from _check_kernel(bench, kernel, bench.dtypes)


def _check_chosen(bench: CheckContext) -> Iterator[Difference]:
    """The kernel with which a model fitted to this hardware trains, in the dtype in which it trains."""
    model = Decoder(QWEN3)
    hardware.prepare_model(model, bench.hardware)
    yield from _check_kernel(bench, model.kernel, [bench.hardware.dtype])


def _check_rotary(bench: CheckContext) -> Iterator[Difference]:
    """Angles at positions near and far, plain and stretched, and what they turn."""
    dim, theta = 2 * PAIRS, 500.0
    positions = torch.tensor([[0, 1, 2, 3, 100, FAR - 1], [FAR // 2, 7, 5, 3, 1, 0]])
    x = draw(8, 2, 6, 3, dim)
    one = torch.zeros(1, 6, 1, dim, dtype=torch.float64)
    one[..., :PAIRS] = 1
    for scaling in (None, *SCALINGS):
        what = "plain" if scaling is None else scaling.kind
        cos, sin = rotary.rope_cos_sin(positions.to(bench.device), dim, theta, scaling)
        allowed = TURN_ROUNDINGS * FAR
        for row in range(2):
            # A longrope decides by the largest position of all rows.
            places = torch.cat((positions[row], positions.max()[None]))
            unit = torch.cat((one, one[:, :1]), dim=1)
            angle = reference.turned(unit, places, theta, scaling)[0, :-1, 0]
            yield compare(f"{what} angles: cosine", cos[row, 0], angle[:, :PAIRS], allowed)
            yield compare(f"{what} angles: sine", sin[row, 0], angle[:, PAIRS:], allowed)
    cos, sin = rotary.rope_cos_sin(positions.to(bench.device), dim, theta)
    want = torch.stack([reference.turned(x[row : row + 1], positions[row], theta)[0] for row in range(2)])
    for dtype in bench.dtypes:
        got = rotary.apply_rope(x.transpose(1, 2).to(bench.device, dtype), cos, sin).transpose(1, 2)
        yield compare("rotate", got, want, allowed if dtype == torch.float32 else 1, dtype)


def _check_norms(bench: CheckContext) -> Iterator[Difference]:
    for kind in ("rms", "layer"):
        config = replace(QWEN3, norm=kind, norm_eps=1e-2)
        module = layers.norm(config, 24)
        loud(module)
        weights = {f"n.{name}": weight for name, weight in weights_of(module).items()}
        wide, upstream = draw(9, 2, 5, 24).requires_grad_(), draw(11, 2, 5, 24)
        want = reference.norm(weights, "n", config, wide)
        wanted = torch.autograd.grad(want, (wide, *weights.values()), upstream)
        module.to(bench.device)
        for dtype in bench.dtypes:
            x = wide.detach().to(bench.device, dtype).requires_grad_()
            got = module(x)
            yield compare(f"{kind} norm", got, want, _roundings(dtype), dtype)
            found = torch.autograd.grad(got, (x, *module.parameters()), upstream.to(got))
            for part, ours, plain in zip(("input", *weights), found, wanted, strict=True):
                yield compare(f"{kind} norm: gradient of {part}", ours, plain, _roundings(dtype), dtype)
            if kind == "rms":
                alone = layers.rms_norm(x, cast(Tensor, module.weight), config.norm_eps)
                yield compare("rms_norm", alone, want, _roundings(dtype), dtype)


def _check_products(bench: CheckContext) -> Iterator[Difference]:
    """Several projections at once, as the plain way and as the fast one make them."""
    x = draw(12, 2, 5, 24)
    for biased in (False, True):
        made = [linear.Linear(24, outer, bias=biased) for outer in (7, 11, 7)]
        for seed, one in enumerate(made):
            loud(one, seed)
        want = [
            reference.product({f"p.{name}": weight for name, weight in weights_of(one).items()}, "p", x)
            for one in made
        ]
        for one in made:
            one.to(bench.device)
        for dtype in bench.dtypes:
            given = x.to(bench.device, dtype)
            for name, op in (("one by one", linear.PLAIN), ("stacked", cpu.STACKED)):
                for one in made:
                    one.op = op
                for ours, plain in zip(linear.project(given, *made), want, strict=True):
                    yield compare(f"projections, {name}", ours, plain, _roundings(dtype), dtype)


def _check_feed_forward(bench: CheckContext) -> Iterator[Difference]:
    stream = draw(15, 2, 5, QWEN3.d_model)
    for name, config in CONFIGS.items():
        feed = layers.feed_forward(config)
        loud(feed)
        weights = {f"mlp.{part}": weight for part, weight in weights_of(feed).items()}
        want = reference.feed_forward(weights, config, stream)
        feed.to(bench.device)
        for dtype in bench.dtypes:
            made = feed(stream.to(bench.device, dtype))
            got = made[0] if config.moe else made
            yield compare(f"{name}: feed-forward", got, want, _roundings(dtype), dtype)


def _check_groups(bench: CheckContext) -> Iterator[Difference]:
    """Rows sorted by expert, one expert without any; sizes for which there is a fast kernel and others."""
    counts = (3, 0, 6, 1)
    ends = torch.tensor(counts).cumsum(0)
    for inner, outer in ((16, 8), (10, 6)):
        rows, matrices = draw(18, 10, inner), draw(19, len(counts), outer, inner)
        wide = [rows.requires_grad_(), matrices.requires_grad_()]
        groups = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        want, upstream = torch.einsum("ri,roi->ro", rows, matrices[groups]), draw(20, 10, outer)
        wanted = torch.autograd.grad(want, wide, upstream)
        for dtype in bench.dtypes:
            given = [x.detach().to(bench.device, dtype).requires_grad_() for x in wide]
            got = grouped_gemm.grouped_product(given[0], given[1], ends.int().to(bench.device))
            yield compare(f"grouped product, {inner} x {outer}", got, want, _roundings(dtype), dtype)
            found = torch.autograd.grad(got, given, upstream.to(got))
            for part, ours, plain in zip(("rows", "matrices"), found, wanted, strict=True):
                yield compare(f"grouped product: slope of {part}", ours, plain, _roundings(dtype), dtype)


def _check_fp8(bench: CheckContext) -> Iterator[Difference]:
    """Numbers in 8 bits and their scale; which products use them; and those, where the hardware has them."""
    x, weight = draw(21, 32, 64, scale=3.0), draw(22, 48, 64)
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        small, scale = fp8.quantized(x.float().to(bench.device), dtype)
        yield compare("quantized", small.float() * scale, x, 1, dtype)
    model, ids = decoder(QWEN3, bench), texts(1, 16).to(bench.device)
    with torch.no_grad():
        want = model(ids)
        fp8.use_fp8(model)
        yield equal("scores are never computed in fp8", model(ids), want)
    swapped = {
        name for name, part in model.named_modules() if isinstance(part, linear.Linear) and fp8.is_fp8(part)
    }
    inner = {name for name, part in model.named_modules() if ".layers.1." in name and name.endswith("_proj")}
    yield equal("products in fp8", swapped, inner)
    cuda = bench.device.type == "cuda"
    if cuda and torch.cuda.get_device_capability(bench.device) >= fp8.CAPABILITY:
        product = linear.Linear(64, 48, bias=False)
        with torch.no_grad():
            product.weight.copy_(weight)
        product.to(bench.device).op = fp8.Fp8Op(linear.PLAIN)
        got = product(x.to(bench.device, torch.bfloat16))
        yield compare("fp8 product", got, torch.einsum("ri,oi->ro", x, weight), 1, torch.float8_e4m3fn)


def _check_attention_layer(bench: CheckContext) -> Iterator[Difference]:
    """Heads split and joined, normed and turned: the whole sub-layer."""
    segments = documents(3, 21)
    for name, config in CONFIGS.items():
        layer = layers.Attention(config, config.n_layers - 1)
        loud(layer)
        x = draw(16, 3, 21, config.d_model)
        embedded = draw(17, 3, 21, config.n_kv_heads * config.head_dim)
        spoken = embedded if config.value_embeddings else None
        weights = {f"self_attn.{part}": weight for part, weight in weights_of(layer).items()}
        want = reference.attention(weights, config, x, reference.may_see(segments.tolist()), spoken)
        layer.to(bench.device)
        places = torch.arange(21, device=bench.device)[None]
        turn = (
            rotary.rope_cos_sin(places, config.head_dim, config.rope_theta)
            if config.positions == "rope"
            else None
        )
        seen = attention.FUSED.make_mask(segments.to(bench.device), 0)
        for dtype in bench.dtypes:
            said = None if spoken is None else spoken.to(bench.device, dtype)
            got = layer(x.to(bench.device, dtype), turn, seen, None, said)
            yield compare(f"{name}: attention", got, want, 2 * _roundings(dtype), dtype)


CHECKS = [
    Check("layers: masks", "a position sees the future, another document, or padding", _check_masks),
    Check("layers: fused attention", "attention mixes the wrong values", _check_fused),
    Check("layers: blockwise attention", "attention mixes the wrong values when compiled", _check_blocks),
    Check("layers: chosen attention", "attention as it runs here mixes the wrong values", _check_chosen),
    Check("layers: rotary positions", "tokens stand at wrong distances", _check_rotary),
    Check("layers: norms", "every layer reads numbers of the wrong size", _check_norms),
    Check("layers: projections", "matrix products are wrong or mixed up", _check_products),
    Check("layers: feed-forward", "what layers know is read wrongly", _check_feed_forward),
    Check("layers: grouped products", "experts multiply the wrong tokens", _check_groups),
    Check("layers: fp8", "numbers lose more in 8 bits than they must", _check_fp8),
    Check("layers: attention", "heads are split, normed, turned or joined wrongly", _check_attention_layer),
]
