"""Checks of `model/losses.py`: values and gradients in every dtype, over several chunks.

in:  a `CheckContext`
out: differences
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from groundup.doctor import formulas, reference
from groundup.doctor.check import Check, CheckContext, Difference, compare, normal
from groundup.model import losses

POSITIONS, WIDTH, VOCAB = 3 * 1400, 24, 61
"""More than two chunks of 2048 positions, and no multiple of the chunk size."""
ROUNDINGS = 32
"""Consecutive fp32 roundings: tree sums over thousands of positions."""
LOW_ROUNDINGS = 4
"""Consecutive roundings of a lower dtype: a logit, its gradient, and a product of either."""
TEMPERATURES = (0.5, 1.0, 1.7)
CAPS = (0.0, 3.0)
"""0 = no cap."""


@dataclass(frozen=True)
class _Inputs:
    """Inputs in float64, exactly representable in every dtype."""

    hidden: Tensor
    head: Tensor
    targets: Tensor
    weights: Tensor


def _inputs() -> _Inputs:
    generator = torch.Generator().manual_seed(3)
    return _Inputs(
        normal(1, POSITIONS, WIDTH),
        normal(2, VOCAB, WIDTH, scale=0.5),
        torch.randint(VOCAB, (POSITIONS,), generator=generator),
        # 0 and 1 as in loss masks, and other weights.
        torch.randint(0, 4, (POSITIONS,), generator=generator).double() / 2,
    )


def _roundings(dtype: torch.dtype) -> int:
    return ROUNDINGS if dtype == torch.float32 else LOW_ROUNDINGS


def _leaves(inputs: _Inputs, context: CheckContext, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Hidden vectors in the compute dtype and the head's weight in fp32, as in training."""
    hidden = inputs.hidden.to(context.device, dtype).requires_grad_()
    return hidden, inputs.head.float().to(context.device).requires_grad_()


def _check_softcap(context: CheckContext) -> Iterator[Difference]:
    logits = normal(6, 50, scale=5.0)
    for cap in CAPS:
        wide, narrow = logits.clone().requires_grad_(), logits.float().to(context.device).requires_grad_()
        want, got = reference.capped(wide, cap), losses.softcap(narrow, cap)
        yield compare(f"softcap {cap}", got, want, ROUNDINGS)
        gradients = torch.autograd.grad(got.sum(), narrow)[0], torch.autograd.grad(want.sum(), wide)[0]
        yield compare(f"softcap {cap}: gradient", gradients[0], gradients[1], ROUNDINGS)


def _check_cross_entropy(context: CheckContext) -> Iterator[Difference]:
    """Cross-entropy, its gradients scaled as by gradient accumulation."""
    inputs, scale = _inputs(), 0.37
    targets, weights = inputs.targets.to(context.device), inputs.weights.float().to(context.device)
    for cap in CAPS:
        wide = [inputs.hidden.clone().requires_grad_(), inputs.head.clone().requires_grad_()]
        logits = reference.capped(wide[0] @ wide[1].T, cap)
        want = formulas.cross_entropy(logits, inputs.targets, inputs.weights)
        wanted = torch.autograd.grad(want * scale, wide)
        for dtype in context.dtypes:
            what, allowed = f"cross_entropy, cap {cap}", _roundings(dtype)
            leaves = _leaves(inputs, context, dtype)
            loss, total = losses.cross_entropy(*leaves, targets, weights, cap=cap)
            yield compare(f"{what}: value", loss, want, allowed, dtype)
            yield compare(f"{what}: weight", total, inputs.weights.sum(), ROUNDINGS)
            gradients = torch.autograd.grad(loss * scale, leaves)
            for part, ours, plain in zip(("hidden vectors", "head"), gradients, wanted, strict=True):
                yield compare(f"{what}: gradient of {part}", ours, plain, allowed, dtype)
            with torch.no_grad():
                alone = losses.cross_entropy(*leaves, targets, weights, cap=cap)[0]
            yield compare(f"{what}, without gradients", alone, want, allowed, dtype)


def _check_chunk(context: CheckContext) -> Iterator[Difference]:
    """The kernel of one chunk, which is compiled in training."""
    inputs, size = _inputs(), 500
    for cap in CAPS:
        wide = [inputs.hidden[:size].clone().requires_grad_(), inputs.head.clone().requires_grad_()]
        logits = reference.capped(wide[0] @ wide[1].T, cap)
        want = formulas.cross_entropy(logits, inputs.targets[:size], inputs.weights[:size])
        wanted = (want, *torch.autograd.grad(want, wide))
        for dtype in context.dtypes:
            got = losses.chunk_with_gradient(
                inputs.hidden[:size].to(context.device, dtype),
                inputs.head.to(context.device, dtype),
                inputs.targets[:size].to(context.device),
                inputs.weights[:size].float().to(context.device),
                cap,
            )
            parts = ("loss", "gradient of hidden", "gradient of head")
            for part, ours, plain in zip(parts, got, wanted, strict=True):
                yield compare(
                    f"chunk_with_gradient, cap {cap}: {part}", ours, plain, _roundings(dtype), dtype
                )


def _check_log_probs(context: CheckContext) -> Iterator[Difference]:
    inputs, shape = _inputs(), (3, POSITIONS // 3)
    targets = inputs.targets.view(shape).to(context.device)
    upstream = [normal(seed, *shape) for seed in (4, 5)]
    for temperature, cap in product(TEMPERATURES, CAPS):
        wide = [inputs.hidden.clone().requires_grad_(), inputs.head.clone().requires_grad_()]
        logits = reference.capped(wide[0] @ wide[1].T, cap)
        log_probs = formulas.log_softmax(logits, temperature).gather(1, inputs.targets[:, None]).view(shape)
        entropy = formulas.entropy(logits, temperature).view(shape)
        plain = torch.autograd.grad((log_probs * upstream[0] + entropy * upstream[1]).sum(), wide)
        for dtype in context.dtypes:
            allowed, at = _roundings(dtype), f"temperature {temperature}, cap {cap}"
            leaves = _leaves(inputs, context, dtype)
            rows, head = leaves[0].view(*shape, WIDTH), leaves[1]
            got, our_entropy = losses.log_probs_and_entropy(rows, head, targets, temperature, cap)
            yield compare(f"log-probabilities, {at}", got, log_probs, allowed, dtype)
            yield compare(f"entropy, {at}", our_entropy, entropy, allowed, dtype)
            sides = [x.float().to(context.device) for x in upstream]
            ours = torch.autograd.grad((got * sides[0] + our_entropy * sides[1]).sum(), leaves)
            for what, our_gradient, wanted in zip(("hidden vectors", "head"), ours, plain, strict=True):
                yield compare(
                    f"log-probabilities: gradient of {what}, {at}", our_gradient, wanted, allowed, dtype
                )
            with torch.no_grad():
                alone = losses.token_log_probs(rows, head, targets, temperature, cap)
            yield compare(f"token_log_probs, {at}", alone, log_probs, allowed, dtype)


CHECKS = [
    Check("losses: softcap", "logits are capped wrongly", _check_softcap),
    Check("losses: cross-entropy", "pretraining and fine-tuning minimize a wrong loss", _check_cross_entropy),
    Check(
        "losses: cross-entropy kernel", "pretraining and fine-tuning follow a wrong gradient", _check_chunk
    ),
    Check("losses: log-probabilities", "alignment uses wrong token log-probabilities", _check_log_probs),
]
