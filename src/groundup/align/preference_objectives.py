"""Losses on preferences: pure functions of log-probabilities, one loss for each example, each beside its paper.

in:  log-probabilities summed over an answer's scored tokens, or their difference from the reference policy's sums
     (log-ratios), or means per token
out: one loss for each pair or for each labelled answer

A log-ratio is log pi(answer | prompt) - log pi_ref(answer | prompt). A difference is the chosen answer's log-ratio
minus the rejected answer's. Token counts are those of the tokens whose log-probabilities are summed.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

CERTAIN = -1e-6
"""Largest log-probability per token of ORPO's odds, which are infinite for an answer of probability 1."""


def mean_per_token(sums: Float[Tensor, "*shape"], tokens: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Sums divided by token counts; 0 for an answer without a scored token."""
    return torch.where(tokens > 0, sums / tokens.clamp(min=1), torch.zeros_like(sums))


def dpo_sigmoid(
    difference: Float[Tensor, " pairs"], beta: float, label_smoothing: float = 0.0
) -> Float[Tensor, " pairs"]:
    """-(1 - e) log sigmoid(beta d) - e log sigmoid(-beta d), with label smoothing e.

    Rafailov et al. 2023 (arXiv:2305.18290), equation 7; with e > 0 conservative DPO (Mitchell 2023, equation 3).
    """
    logits = beta * difference
    return -(1 - label_smoothing) * F.logsigmoid(logits) - label_smoothing * F.logsigmoid(-logits)


def dpo_robust(
    difference: Float[Tensor, " pairs"], beta: float, label_smoothing: float
) -> Float[Tensor, " pairs"]:
    """The unbiased estimate of DPO's loss when a fraction `label_smoothing` of the labels is flipped.

    Chowdhury et al. 2024 (arXiv:2403.00409).
    """
    logits = beta * difference
    kept, flipped = (1 - label_smoothing) * F.logsigmoid(logits), label_smoothing * F.logsigmoid(-logits)
    return (flipped - kept) / (1 - 2 * label_smoothing)


def dpo_hinge(difference: Float[Tensor, " pairs"], beta: float) -> Float[Tensor, " pairs"]:
    """max(0, 1 - beta d). Zhao et al. 2023 (arXiv:2305.10425) on log-ratios, as Liu et al. (arXiv:2309.06657)."""
    return torch.relu(1 - beta * difference)


def ipo(difference: Float[Tensor, " pairs"], beta: float) -> Float[Tensor, " pairs"]:
    """(d - 1 / (2 beta))^2. Azar et al. 2023 (arXiv:2310.12036), equation 17.

    The paper's d is a difference of sums. The authors' later runs and TRL use means per token, as `dpo` does here.
    """
    return (difference - 1 / (2 * beta)).square()


def dpop(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"], beta: float, penalty: float
) -> Float[Tensor, " pairs"]:
    """-log sigmoid(beta (d - penalty max(0, -chosen))): the chosen answer must not fall below the reference.

    Pal et al. 2024 (arXiv:2402.13228). Arguments are log-ratios.
    """
    return -F.logsigmoid(beta * (chosen - rejected - penalty * torch.relu(-chosen)))


def apo_zero(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"], beta: float
) -> Float[Tensor, " pairs"]:
    """1 - sigmoid(beta chosen) + sigmoid(beta rejected): raises the chosen and lowers the rejected answer.

    D'Oosterlinck et al. 2024 (arXiv:2408.06266), equation 7. Arguments are log-ratios.
    """
    return 1 - torch.sigmoid(beta * chosen) + torch.sigmoid(beta * rejected)


def apo_down(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"], beta: float
) -> Float[Tensor, " pairs"]:
    """sigmoid(beta chosen) + 1 - sigmoid(beta d): lowers both, for pairs worse than the policy.

    D'Oosterlinck et al. 2024 (arXiv:2408.06266), equation 8. Arguments are log-ratios.
    """
    return torch.sigmoid(beta * chosen) + 1 - torch.sigmoid(beta * (chosen - rejected))


def cpo(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"], beta: float
) -> Float[Tensor, " pairs"]:
    """-log sigmoid(beta (chosen - rejected)) of summed log-probabilities, without a reference.

    Xu et al. 2024 (arXiv:2401.08417); its likelihood term is added with `nll_coef`.
    """
    return -F.logsigmoid(beta * (chosen - rejected))


def simpo(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"], beta: float, target_margin: float
) -> Float[Tensor, " pairs"]:
    """-log sigmoid(beta (chosen - rejected) - target_margin) of mean log-probabilities per token.

    Meng et al. 2024 (arXiv:2405.14734), equation 6.
    """
    return -F.logsigmoid(beta * (chosen - rejected) - target_margin)


def orpo(
    chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"], odds_coef: float
) -> Float[Tensor, " pairs"]:
    """-chosen - odds_coef log sigmoid(log odds ratio) of mean log-probabilities per token.

    Hong et al. 2024 (arXiv:2403.07691), equations 6 and 7; the log odds of p are log p - log(1 - p).
    """
    log_odds = _log_odds(chosen) - _log_odds(rejected)
    return -chosen - odds_coef * F.logsigmoid(log_odds)


def kto(
    log_ratios: Float[Tensor, " answers"],
    desirable: Bool[Tensor, " answers"],
    reference_point: float,
    beta: float,
    weights: tuple[float, float] = (1.0, 1.0),
) -> Float[Tensor, " answers"]:
    """w (1 - sigmoid(beta (h - z))) for a desirable answer, w (1 - sigmoid(beta (z - h))) for an undesirable one.

    Ethayarajh et al. 2024 (arXiv:2402.01306), equations 7 and 8, with the constant that makes the loss positive.
    h: the log-ratio. reference_point: z. weights: w of desirable and of undesirable answers.
    """
    value = torch.sigmoid(beta * (log_ratios - reference_point))
    return torch.where(desirable, weights[0] * (1 - value), weights[1] * value)


def kto_reference_point(mismatched_log_ratios: Float[Tensor, " answers"]) -> float:
    """max(0, mean log-ratio) of answers beside prompts that they don't belong to: an estimate of KL(pi || pi_ref).

    Of all answers of a step, on all ranks; it has no gradient.
    """
    return max(0.0, float(mismatched_log_ratios.detach().mean()))


def _log_odds(log_probs: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    certain = log_probs.clamp(max=CERTAIN)
    return certain - torch.log(-torch.expm1(certain))
