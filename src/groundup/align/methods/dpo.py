"""Method: DPO and its variants. Pairs of responses -> a policy that prefers the chosen ones, without a reward model.

in:  an initial policy (the reference policy), rankings
out: the policy; log-ratios of chosen and rejected responses, margins, accuracy on held-out pairs

Rafailov et al. 2023 (arXiv:2305.18290). The key `loss` names a variant; each is one function of `preference_objectives`
with its paper. `nll_coef` adds the chosen response's negative log-likelihood per token (RPO, Pang et al. 2024,
arXiv:2404.19733): on pairs that differ little, plain DPO lowers the probability of both responses, and this term keeps
the chosen one's.
"""

from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from groundup.align import preference_objectives as objectives
from groundup.align.methods import MethodContext, Session
from groundup.align.pair_session import pair_session
from groundup.align.preference_session import Answers, PreferenceMethod

Loss = Literal["sigmoid", "robust", "hinge", "ipo", "sigmoid_norm", "dpop", "apo_zero", "apo_down"]


class Dpo(PreferenceMethod):
    """Direct preference optimization against the initial policy, with its published variants."""

    headline: ClassVar[tuple[str, ...]] = (
        "accuracy_before",
        "accuracy",
        "chosen_log_ratio",
        "rejected_log_ratio",
    )

    loss: Loss = Field(
        default="sigmoid",
        description="loss of a pair: sigmoid (DPO), robust, hinge, ipo, sigmoid_norm (per token), dpop, apo_zero or "
        "apo_down",
    )
    beta: float = Field(
        default=0.1, gt=0, description="strength of the penalty for departing from the reference policy"
    )
    nll_coef: float = Field(
        default=1.0,
        ge=0,
        description="coefficient of the chosen response's negative log-likelihood per token (RPO); 0 = none",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="assumed fraction of flipped pairs; with `sigmoid` conservative DPO",
    )
    dpop_penalty: float = Field(
        default=5.0,
        ge=0,
        description="DPOP: penalty of a chosen response that falls below the reference policy",
    )

    def prepare(self, context: MethodContext) -> Session:
        """Render the pairs and compute the reference policy's log-probabilities."""
        return pair_session(self, context)

    def losses(self, answers: Answers) -> Float[Tensor, " groups"]:
        """The variant's loss of each pair, and the likelihood term."""
        losses = self._preference_losses(answers)
        return (
            losses - self.nll_coef * answers.per_token(answers.log_probs)[:, 0] if self.nll_coef else losses
        )

    def _preference_losses(self, answers: Answers) -> Float[Tensor, " groups"]:
        chosen, rejected = answers.log_ratios.unbind(dim=1)
        difference, beta, smoothing = chosen - rejected, self.beta, self.label_smoothing
        normalised = -answers.per_token(answers.log_ratios).diff(dim=1)[:, 0]
        match self.loss:
            case "sigmoid":
                return objectives.dpo_sigmoid(difference, beta, smoothing)
            case "sigmoid_norm":
                return objectives.dpo_sigmoid(normalised, beta, smoothing)
            case "robust":
                return objectives.dpo_robust(difference, beta, smoothing)
            case "hinge":
                return objectives.dpo_hinge(difference, beta)
            case "ipo":
                return objectives.ipo(normalised, beta)
            case "dpop":
                return objectives.dpop(chosen, rejected, beta, self.dpop_penalty)
            case "apo_zero":
                return objectives.apo_zero(chosen, rejected, beta)
            case "apo_down":
                return objectives.apo_down(chosen, rejected, beta)
