"""Method: ORPO. Pairs of responses -> a policy fine-tuned on the chosen ones and repelled from the rejected ones.

in:  an initial policy, rankings
out: the policy; log-ratios of chosen and rejected responses to the initial policy, margins, accuracy

Hong et al. 2024 (arXiv:2403.07691): supervised fine-tuning and a penalty on the odds ratio in one loss, so the initial
policy may be a pretrained one.
"""

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from groundup.align import preference_objectives as objectives
from groundup.align.methods import MethodContext, Session
from groundup.align.pair_session import pair_session
from groundup.align.preference_session import Answers, PreferenceMethod


class Orpo(PreferenceMethod):
    """Fine-tuning and preference optimization in one loss, by the odds ratio."""

    odds_coef: float = Field(default=0.1, ge=0, description="coefficient of the odds-ratio term")

    def prepare(self, context: MethodContext) -> Session:
        """Render the pairs."""
        return pair_session(self, context)

    def losses(self, answers: Answers) -> Float[Tensor, " groups"]:
        """The loss of each pair."""
        chosen, rejected = answers.per_token(answers.log_probs).unbind(dim=1)
        return objectives.orpo(chosen, rejected, self.odds_coef)
