"""Checks of `align/objectives.py`: values and gradients against the papers' formulas, with padding poisoned.

in:  a bench
out: differences

Functions are looked up in their module when a check runs, so that the check sees what training would.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from groundup.align import objectives
from groundup.doctor import formulas
from groundup.doctor.check import Check, CheckContext, Difference, compare, draw, equal

LENGTHS = (9, 4, 1, 12, 7, 12)
"""Tokens of each answer; several steps long, and one of a single token."""
TIME = 12
POISON = (float("nan"), 1e30)
ROUNDINGS = 32
"""Of fp32, one after the other: sums over some 50 tokens of products of a few factors."""


def answer_mask(device: torch.device) -> Bool[Tensor, "batch time"]:
    """True on the tokens of answers of `LENGTHS`."""
    return (torch.arange(TIME)[None] < torch.tensor(LENGTHS)[:, None]).to(device)


def answers(seed: int, scale: float = 1.0) -> Tensor:
    """A number for every place of every answer, those beyond the end included."""
    return draw(seed, len(LENGTHS), TIME, scale=scale)


def _both(
    what: str,
    bench: CheckContext,
    ours: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    poison: float | None = None,
) -> Iterator[Difference]:
    """Value and gradients of ours against the plain formula. `poison`: what ours finds beyond an answer's end."""
    mask = answer_mask(bench.device)
    narrow = [x.float().to(bench.device) for x in inputs]
    if poison is not None:
        narrow = [torch.where(mask, x, poison) if x.shape == mask.shape else x for x in narrow]
    narrow = [x.requires_grad_() for x in narrow]
    wide = [x.clone().requires_grad_() for x in inputs]
    got, want = ours(*narrow), plain(*wide)
    yield compare(f"{what}: value", got, want, ROUNDINGS)
    upstream = draw(99, *want.shape)
    ours_grads = torch.autograd.grad(got, narrow, upstream.to(got), allow_unused=True)
    plain_grads = torch.autograd.grad(want, wide, upstream, allow_unused=True)
    for number, (found, wanted) in enumerate(zip(ours_grads, plain_grads, strict=True), start=1):
        zeros = torch.zeros_like(inputs[number - 1])
        yield compare(
            f"{what}: gradient of argument {number}",
            zeros if found is None else found,
            zeros if wanted is None else wanted,
            ROUNDINGS,
        )


def _check_masks(bench: CheckContext) -> Iterator[Difference]:
    mask, x = answer_mask(bench.device), answers(0)
    inside = mask.cpu().double()
    for poison in POISON:
        yield from _both("only", bench, lambda x: objectives.only(mask, x), lambda x: x * inside, [x], poison)
        yield from _both(
            "masked_mean",
            bench,
            lambda x: objectives.masked_mean(x, mask),
            lambda x: formulas.mean(x, LENGTHS),
            [x],
            poison,
        )
    nothing = objectives.masked_mean(x.float().to(bench.device), torch.zeros_like(mask))
    yield equal("masked_mean of nothing", float(nothing), 0.0)


def _check_bradley_terry(bench: CheckContext) -> Iterator[Difference]:
    chosen, rejected = draw(1, 40, scale=3.0), draw(2, 40, scale=3.0)
    chosen[0], rejected[0], chosen[1], rejected[1] = 40.0, -40.0, -40.0, 40.0
    for margin in (0.0, 0.7):
        yield from _both(
            f"bradley_terry, margin {margin}",
            bench,
            lambda a, b, m=margin: objectives.bradley_terry(a, b, m),
            lambda a, b, m=margin: formulas.bradley_terry(a, b, m),
            [chosen, rejected],
        )


def _check_token_rewards(bench: CheckContext) -> Iterator[Difference]:
    mask = answer_mask(bench.device)
    for poison in POISON:
        yield from _both(
            "token_rewards",
            bench,
            lambda scores, ratios: objectives.token_rewards(scores, ratios, mask, 0.3),
            lambda scores, ratios: formulas.token_rewards(scores, ratios, LENGTHS, 0.3),
            [draw(3, len(LENGTHS)), answers(4)],
            poison,
        )


def _check_gae(bench: CheckContext) -> Iterator[Difference]:
    mask, given = answer_mask(bench.device), [answers(5), answers(6)]
    ways = ((1.0, 1.0, POISON[0]), (1.0, 0.95, POISON[1]), (0.9, 0.7, POISON[0]), (0.9, 0.0, None))
    for gamma, lam, poison in ways:
        for number, part in enumerate(("advantages", "returns")):
            yield from _both(
                f"gae {part}, gamma {gamma}, lambda {lam}",
                bench,
                lambda r, v, p=part, g=gamma, m=lam: getattr(objectives.gae(r, v, mask, g, m), p),
                lambda r, v, n=number, g=gamma, m=lam: formulas.gae(r, v, LENGTHS, g, m)[n],
                given,
                poison,
            )


def _check_whiten(bench: CheckContext) -> Iterator[Difference]:
    mask = answer_mask(bench.device)
    for eps in (1e-8, 0.5):
        yield from _both(
            f"whiten, eps {eps}",
            bench,
            lambda x, e=eps: objectives.whiten(x, mask, e),
            lambda x, e=eps: formulas.whiten(x, LENGTHS, e),
            [answers(7) * 3 + 2],
            POISON[0],
        )


def _check_ppo(bench: CheckContext) -> Iterator[Difference]:
    inputs = [answers(8, 0.5), answers(9, 0.5), answers(10)]
    yield from _clipped(bench, "ppo_policy_loss", formulas.ppo, 0.2, inputs)


def _check_value_loss(bench: CheckContext) -> Iterator[Difference]:
    inputs = [answers(11), answers(12), answers(13)]
    yield from _clipped(bench, "value_loss", formulas.value_loss, 0.3, inputs)


def _clipped(
    bench: CheckContext,
    name: str,
    formula: Callable[..., tuple[Tensor, float]],
    clip: float,
    inputs: list[Tensor],
) -> Iterator[Difference]:
    """A clipped loss, and the share of its tokens that the clip holds back."""
    ours, mask, total = getattr(objectives, name), answer_mask(bench.device), 57.0
    for poison in POISON:
        yield from _both(
            name,
            bench,
            lambda *given: ours(*given, mask, clip, total).loss,
            lambda *given: formula(*given, LENGTHS, clip, total)[0],
            inputs,
            poison,
        )
    got = ours(*(x.float().to(bench.device) for x in inputs), mask, clip, total).clipped
    share = formula(*inputs, LENGTHS, clip, total)[1]
    yield compare(f"{name}: clipped share", got, torch.tensor(share), ROUNDINGS)


def _check_kl(bench: CheckContext) -> Iterator[Difference]:
    """Both estimators, averaged over every outcome with its probability, are the divergence itself."""
    policy, start = (formulas.log_softmax(draw(seed, 30)) for seed in (14, 15))
    log_ratios = policy - start
    divergence = (policy.exp() * log_ratios).sum()
    for name in ("kl_k1", "kl_k3"):
        estimate = getattr(objectives, name)(log_ratios.float().to(bench.device)).double().cpu()
        yield compare(f"{name}: its expectation", (policy.exp() * estimate).sum(), divergence, ROUNDINGS)
    given = log_ratios.bfloat16().double()
    yield from _both("kl_k1", bench, lambda x: objectives.kl_k1(x), lambda x: x * 1.0, [given])
    yield from _both("kl_k3", bench, lambda x: objectives.kl_k3(x), lambda x: torch.exp(-x) - 1 + x, [given])


CHECKS = [
    Check("objectives: masks", "padding reaches losses and means of alignment", _check_masks),
    Check("objectives: Bradley-Terry", "a reward model learns from wrong preferences", _check_bradley_terry),
    Check(
        "objectives: token rewards",
        "PPO's score or its KL penalty is on the wrong token",
        _check_token_rewards,
    ),
    Check("objectives: GAE", "PPO's advantages or returns are wrong", _check_gae),
    Check("objectives: whitening", "PPO's advantages have the wrong scale", _check_whiten),
    Check("objectives: PPO policy loss", "PPO clips or weighs its policy's steps wrongly", _check_ppo),
    Check("objectives: value loss", "PPO's critic learns wrong values", _check_value_loss),
    Check("objectives: KL estimators", "the distance to the start policy is misjudged", _check_kl),
]
