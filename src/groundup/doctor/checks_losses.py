"""Checks of `model/losses.py`: values and gradients in every dtype, over more positions than fit into one chunk.

in:  a bench
out: differences
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from groundup.doctor import formulas, reference
from groundup.doctor.check import Check, CheckContext, Difference, compare, draw
from groundup.model import losses

POSITIONS, WIDTH, VOCAB = 3 * 1400, 24, 61
"""More than two chunks of 2048 positions, and no multiple of one."""
ROUNDINGS = 32
"""Of fp32, after each other: sums over thousands of positions, added up in a tree."""
LOW_ROUNDINGS = 4
"""Of a lower dtype: a logit, a gradient of it, and a product of either."""
TEMPERATURES = (0.5, 1.0, 1.7)
CAPS = (0.0, 3.0)
"""0 = logits as they are."""


@dataclass(frozen=True)
class _Inputs:
    """In float64, of values that every dtype holds exactly."""

    hidden: Tensor
    head: Tensor
    targets: Tensor
    weights: Tensor


def _inputs() -> _Inputs:
    generator = torch.Generator().manual_seed(3)
    return _Inputs(
        draw(1, POSITIONS, WIDTH),
        draw(2, VOCAB, WIDTH, scale=0.5),
        torch.randint(VOCAB, (POSITIONS,), generator=generator),
        # Weights as loss masks have them, and others, for a loss may weigh tokens unequally.
        torch.randint(0, 4, (POSITIONS,), generator=generator).double() / 2,
    )


def _roundings(dtype: torch.dtype) -> int:
    return ROUNDINGS if dtype == torch.float32 else LOW_ROUNDINGS


def _leaves(given: _Inputs, bench: CheckContext, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Hidden vectors in the compute dtype and the head's matrix in fp32, as training has them."""
    hidden = given.hidden.to(bench.device, dtype).requires_grad_()
    return hidden, given.head.float().to(bench.device).requires_grad_()


def _check_softcap(bench: CheckContext) -> Iterator[Difference]:
    logits = draw(6, 50, scale=5.0)
    for cap in CAPS:
        wide, narrow = logits.clone().requires_grad_(), logits.float().to(bench.device).requires_grad_()
        want, got = reference.capped(wide, cap), losses.softcap(narrow, cap)
        yield compare(f"softcap {cap}", got, want, ROUNDINGS)
        slopes = torch.autograd.grad(got.sum(), narrow)[0], torch.autograd.grad(want.sum(), wide)[0]
        yield compare(f"softcap {cap}: slope", slopes[0], slopes[1], ROUNDINGS)


def _check_cross_entropy(bench: CheckContext) -> Iterator[Difference]:
    """Also scaled by what comes after it, as gradient accumulation and weighted sums of losses do."""
    given, scale = _inputs(), 0.37
    targets, weights = given.targets.to(bench.device), given.weights.float().to(bench.device)
    for cap in CAPS:
        wide = [given.hidden.clone().requires_grad_(), given.head.clone().requires_grad_()]
        logits = reference.capped(wide[0] @ wide[1].T, cap)
        want = formulas.cross_entropy(logits, given.targets, given.weights)
        wanted = torch.autograd.grad(want * scale, wide)
        for dtype in bench.dtypes:
            what, allowed = f"cross_entropy, cap {cap}", _roundings(dtype)
            leaves = _leaves(given, bench, dtype)
            loss, total = losses.cross_entropy(*leaves, targets, weights, cap=cap)
            yield compare(f"{what}: value", loss, want, allowed, dtype)
            yield compare(f"{what}: weight", total, given.weights.sum(), ROUNDINGS)
            found = torch.autograd.grad(loss * scale, leaves)
            for part, ours, plain in zip(("hidden vectors", "head"), found, wanted, strict=True):
                yield compare(f"{what}: gradient of {part}", ours, plain, allowed, dtype)
            with torch.no_grad():
                alone = losses.cross_entropy(*leaves, targets, weights, cap=cap)[0]
            yield compare(f"{what}, without gradients", alone, want, allowed, dtype)


def _check_chunk(bench: CheckContext) -> Iterator[Difference]:
    """The kernel alone, which is what gets compiled."""
    given, size = _inputs(), 500
    for cap in CAPS:
        wide = [given.hidden[:size].clone().requires_grad_(), given.head.clone().requires_grad_()]
        logits = reference.capped(wide[0] @ wide[1].T, cap)
        want = formulas.cross_entropy(logits, given.targets[:size], given.weights[:size])
        wanted = (want, *torch.autograd.grad(want, wide))
        for dtype in bench.dtypes:
            got = losses.chunk_with_gradient(
                given.hidden[:size].to(bench.device, dtype),
                given.head.to(bench.device, dtype),
                given.targets[:size].to(bench.device),
                given.weights[:size].float().to(bench.device),
                cap,
            )
            parts = ("loss", "slope of hidden", "slope of head")
            for part, ours, plain in zip(parts, got, wanted, strict=True):
                yield compare(
                    f"chunk_with_gradient, cap {cap}: {part}", ours, plain, _roundings(dtype), dtype
                )


def _check_log_probs(bench: CheckContext) -> Iterator[Difference]:
    given, shape = _inputs(), (3, POSITIONS // 3)
    targets = given.targets.view(shape).to(bench.device)
    upstream = [draw(seed, *shape) for seed in (4, 5)]
    for temperature, cap in product(TEMPERATURES, CAPS):
        wide = [given.hidden.clone().requires_grad_(), given.head.clone().requires_grad_()]
        logits = reference.capped(wide[0] @ wide[1].T, cap)
        log_probs = formulas.log_softmax(logits, temperature).gather(1, given.targets[:, None]).view(shape)
        entropy = formulas.entropy(logits, temperature).view(shape)
        plain = torch.autograd.grad((log_probs * upstream[0] + entropy * upstream[1]).sum(), wide)
        for dtype in bench.dtypes:
            allowed, at = _roundings(dtype), f"temperature {temperature}, cap {cap}"
            leaves = _leaves(given, bench, dtype)
            rows, head = leaves[0].view(*shape, WIDTH), leaves[1]
            got, found = losses.log_probs_and_entropy(rows, head, targets, temperature, cap)
            yield compare(f"log-probabilities, {at}", got, log_probs, allowed, dtype)
            yield compare(f"entropy, {at}", found, entropy, allowed, dtype)
            sides = [x.float().to(bench.device) for x in upstream]
            ours = torch.autograd.grad((got * sides[0] + found * sides[1]).sum(), leaves)
            for what, mine, wanted in zip(("hidden vectors", "head"), ours, plain, strict=True):
                yield compare(f"log-probabilities: gradient of {what}, {at}", mine, wanted, allowed, dtype)
            with torch.no_grad():
                alone = losses.token_log_probs(rows, head, targets, temperature, cap)
            yield compare(f"token_log_probs, {at}", alone, log_probs, allowed, dtype)


CHECKS = [
    Check("losses: softcap", "logits are held back too much or too little", _check_softcap),
    Check("losses: cross-entropy", "every training on text learns from a wrong loss", _check_cross_entropy),
    Check("losses: cross-entropy kernel", "every training on text follows a wrong slope", _check_chunk),
    Check(
        "losses: log-probabilities", "alignment misjudges how likely a policy makes a token", _check_log_probs
    ),
]
