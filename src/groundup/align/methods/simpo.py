"""Method: SimPO and CPO. Pairs of responses -> a policy that prefers the chosen ones, without a reference policy.

in:  an initial policy, rankings
out: the policy; log-ratios of chosen and rejected responses to the initial policy, margins, accuracy

SimPO: Meng et al. 2024 (arXiv:2405.14734): the mean log-probability per token is the reward, with a target margin.
CPO: Xu et al. 2024 (arXiv:2401.08417): the summed log-probability is the reward, beside the likelihood term `nll_coef`.
"""

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from groundup.align import preference_objectives as objectives
from groundup.align.methods import MethodContext, Session
from groundup.align.pair_session import pair_session
from groundup.align.preference_session import Answers, PreferenceMethod


class Simpo(PreferenceMethod):
    """Preference optimization without a reference policy: SimPO, or CPO."""

    loss: Literal["simpo", "cpo"] = Field(default="simpo", description="loss of a pair: simpo or cpo")
    beta: float = Field(default=2.0, gt=0, description="scale of the log-probabilities in the loss")
    target_margin: float = Field(
        default=1.0,
        ge=0,
        description="SimPO: margin that the chosen response's scaled log-probability should have",
    )
    nll_coef: float = Field(
        default=0.0,
        ge=0,
        description="coefficient of the chosen response's negative log-likelihood per token; 0 = none",
    )

    def prepare(self, context: MethodContext) -> Session:
        """Render the pairs."""
        return pair_session(self, context)

    def losses(self, answers: Answers) -> Float[Tensor, " groups"]:
        """The loss of each pair."""
        means = answers.per_token(answers.log_probs)
        if self.loss == "cpo":
            losses = objectives.cpo(answers.log_probs[:, 0], answers.log_probs[:, 1], self.beta)
        else:
            losses = objectives.simpo(means[:, 0], means[:, 1], self.beta, self.target_margin)
        return losses - self.nll_coef * means[:, 0]
