"""Checks of `align/objectives.py`: values and gradients against the papers' formulas, with padding poisoned.

in:  a `CheckContext`
out: differences

Functions are looked up in their module when a check runs, as in training.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from groundup.align import objectives
from groundup.doctor import formulas
from groundup.doctor.check import Check, CheckContext, Difference, compare, equal, normal

LENGTHS = (9, 4, 1, 12, 7, 12)
"""Tokens of each response; one has a single token."""
TIME = 12
POISON = (float("nan"), 1e30)
ROUNDINGS = 32
"""Consecutive fp32 roundings: sums over about 50 tokens of products of a few factors."""


def response_mask(device: torch.device) -> Bool[Tensor, "batch time"]:
    """True on the tokens of responses of `LENGTHS`."""
    return (torch.arange(TIME)[None] < torch.tensor(LENGTHS)[:, None]).to(device)


def response_values(seed: int, scale: float = 1.0) -> Tensor:
    """A number for every position of every response, padding included."""
    return normal(seed, len(LENGTHS), TIME, scale=scale)


def _both(
    what: str,
    context: CheckContext,
    ours: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    poison: float | None = None,
) -> Iterator[Difference]:
    """Value and gradients against the formula. `poison`: the value of padding in the function under test."""
    mask = response_mask(context.device)
    narrow = [x.float().to(context.device) for x in inputs]
    if poison is not None:
        narrow = [torch.where(mask, x, poison) if x.shape == mask.shape else x for x in narrow]
    narrow = [x.requires_grad_() for x in narrow]
    wide = [x.clone().requires_grad_() for x in inputs]
    got, want = ours(*narrow), plain(*wide)
    yield compare(f"{what}: value", got, want, ROUNDINGS)
    upstream = normal(99, *want.shape)
    ours_grads = torch.autograd.grad(got, narrow, upstream.to(got), allow_unused=True)
    plain_grads = torch.autograd.grad(want, wide, upstream, allow_unused=True)
    for number, (our_gradient, wanted) in enumerate(zip(ours_grads, plain_grads, strict=True), start=1):
        zeros = torch.zeros_like(inputs[number - 1])
        yield compare(
            f"{what}: gradient of argument {number}",
            zeros if our_gradient is None else our_gradient,
            zeros if wanted is None else wanted,
            ROUNDINGS,
        )


def _check_masks(context: CheckContext) -> Iterator[Difference]:
    mask, x = response_mask(context.device), response_values(0)
    inside = mask.cpu().double()
    for poison in POISON:
        yield from _both(
            "masked", context, lambda x: objectives.masked(mask, x), lambda x: x * inside, [x], poison
        )
        yield from _both(
            "masked_mean",
            context,
            lambda x: objectives.masked_mean(x, mask),
            lambda x: formulas.mean(x, LENGTHS),
            [x],
            poison,
        )
    nothing = objectives.masked_mean(x.float().to(context.device), torch.zeros_like(mask))
    yield equal("masked_mean of an empty mask", float(nothing), 0.0)


def _check_bradley_terry(context: CheckContext) -> Iterator[Difference]:
    chosen, rejected = normal(1, 40, scale=3.0), normal(2, 40, scale=3.0)
    chosen[0], rejected[0], chosen[1], rejected[1] = 40.0, -40.0, -40.0, 40.0
    for margin in (0.0, 0.7):
        yield from _both(
            f"bradley_terry, margin {margin}",
            context,
            lambda a, b, m=margin: objectives.bradley_terry(a, b, m),
            lambda a, b, m=margin: formulas.bradley_terry(a, b, m),
            [chosen, rejected],
        )


def _check_token_rewards(context: CheckContext) -> Iterator[Difference]:
    mask = response_mask(context.device)
    for poison in POISON:
        yield from _both(
            "token_rewards",
            context,
            lambda scores, ratios: objectives.token_rewards(scores, ratios, mask, 0.3),
            lambda scores, ratios: formulas.token_rewards(scores, ratios, LENGTHS, 0.3),
            [normal(3, len(LENGTHS)), response_values(4)],
            poison,
        )


def _check_gae(context: CheckContext) -> Iterator[Difference]:
    mask, inputs = response_mask(context.device), [response_values(5), response_values(6)]
    ways = ((1.0, 1.0, POISON[0]), (1.0, 0.95, POISON[1]), (0.9, 0.7, POISON[0]), (0.9, 0.0, None))
    for gamma, lam, poison in ways:
        for number, part in enumerate(("advantages", "returns")):
            yield from _both(
                f"gae {part}, gamma {gamma}, lambda {lam}",
                context,
                lambda r, v, p=part, g=gamma, m=lam: getattr(objectives.gae(r, v, mask, g, m), p),
                lambda r, v, n=number, g=gamma, m=lam: formulas.gae(r, v, LENGTHS, g, m)[n],
                inputs,
                poison,
            )


def _check_whiten(context: CheckContext) -> Iterator[Difference]:
    mask = response_mask(context.device)
    for eps in (1e-8, 0.5):
        yield from _both(
            f"whiten, eps {eps}",
            context,
            lambda x, e=eps: objectives.whiten(x, mask, e),
            lambda x, e=eps: formulas.whiten(x, LENGTHS, e),
            [response_values(7) * 3 + 2],
            POISON[0],
        )
        yield from _both(
            f"scaled, eps {eps}",
            context,
            lambda x, e=eps: objectives.scaled(x, mask, e),
            lambda x, e=eps: formulas.scaled(x, LENGTHS, e),
            [response_values(7) * 3 + 2],
            POISON[0],
        )


def _check_ppo(context: CheckContext) -> Iterator[Difference]:
    inputs = [response_values(8, 0.5), response_values(9, 0.5), response_values(10)]
    yield from _clipped(context, "ppo_policy_loss", formulas.ppo, 0.2, inputs)


def _check_value_loss(context: CheckContext) -> Iterator[Difference]:
    inputs = [response_values(11), response_values(12), response_values(13)]
    yield from _clipped(context, "value_loss", formulas.value_loss, 0.3, inputs)


def _clipped(
    context: CheckContext,
    name: str,
    formula: Callable[..., tuple[Tensor, float]],
    clip: float,
    inputs: list[Tensor],
) -> Iterator[Difference]:
    """A clipped loss and its clip fraction."""
    ours, mask, total = getattr(objectives, name), response_mask(context.device), 57.0
    for poison in POISON:
        yield from _both(
            name,
            context,
            lambda *tensors: ours(*tensors, mask, clip, total).loss,
            lambda *tensors: formula(*tensors, LENGTHS, clip, total)[0],
            inputs,
            poison,
        )
    got = ours(*(x.float().to(context.device) for x in inputs), mask, clip, total).clipped
    share = formula(*inputs, LENGTHS, clip, total)[1]
    yield compare(f"{name}: clip fraction", got, torch.tensor(share), ROUNDINGS)


def _check_kl(context: CheckContext) -> Iterator[Difference]:
    """The expectation of both estimators under the policy is the KL divergence."""
    policy, start = (formulas.log_softmax(normal(seed, 30)) for seed in (14, 15))
    log_ratios = policy - start
    divergence = (policy.exp() * log_ratios).sum()
    for name in ("kl_k1", "kl_k3"):
        estimate = getattr(objectives, name)(log_ratios.float().to(context.device)).double().cpu()
        yield compare(f"{name}: expectation", (policy.exp() * estimate).sum(), divergence, ROUNDINGS)
    rounded = log_ratios.bfloat16().double()
    yield from _both("kl_k1", context, lambda x: objectives.kl_k1(x), lambda x: x * 1.0, [rounded])
    yield from _both(
        "kl_k3", context, lambda x: objectives.kl_k3(x), lambda x: torch.exp(-x) - 1 + x, [rounded]
    )


CHECKS = [
    Check("objectives: masks", "padding affects alignment losses and means", _check_masks),
    Check("objectives: Bradley-Terry", "a reward model is trained with a wrong loss", _check_bradley_terry),
    Check(
        "objectives: token rewards",
        "PPO's score or KL penalty is on the wrong token",
        _check_token_rewards,
    ),
    Check("objectives: GAE", "PPO's advantages or returns are wrong", _check_gae),
    Check("objectives: whitening", "PPO's advantages have the wrong scale", _check_whiten),
    Check("objectives: PPO policy loss", "PPO's policy loss is clipped or weighted wrongly", _check_ppo),
    Check("objectives: value loss", "PPO's value loss is wrong", _check_value_loss),
    Check("objectives: KL estimators", "the KL to the reference policy is estimated wrongly", _check_kl),
]
