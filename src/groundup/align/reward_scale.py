"""The scale of a reward model: mean and standard deviation of its scores of held-out right answers.

in:  scores of held-out pairs
out: RewardScale, so that a difference of 1 means the same to PPO with every reward model

Few answers give a scale by chance: the scores of two similar answers can differ so little that every other answer gets
a reward of thousands. So a minimum of different answers is needed, and the scale has a floor.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

from groundup.core.errors import DataError, TrainingError

MIN_ANSWERS = 4
"""Different held-out right answers that a scale needs."""
FLOOR = 0.1
"""Least standard deviation of right answers' scores, relative to that of all held-out scores."""


@dataclass(frozen=True)
class RewardScale:
    """Mean and standard deviation of the scores of right answers."""

    mean: float
    std: float


def reward_scale(preferred: Tensor, rejected: Tensor, answers: Sequence[Hashable]) -> RewardScale:
    """The scale of these scores [pairs]; answers: what identifies each pair's preferred answer.

    Every answer counts once, however many pairs it is in. Raises DataError for too few of them, and TrainingError
    where all held-out scores are equal.
    """
    check_answers(len(set(answers)))
    first = {answer: index for index, answer in reversed(list(enumerate(answers)))}
    scores = preferred[sorted(first.values())].double()
    everything = float(
        preferred.new_tensor([*preferred.tolist(), *rejected.tolist()]).double().std(unbiased=False)
    )
    if everything < 1e-6:
        raise TrainingError(
            f"reward: the model gives all {2 * len(preferred)} held-out answers the same score, so it can't tell right "
            "from wrong ones. Train it on more pairs (max_tokens, epochs), or with a higher learning rate"
        )
    std = float(scores.std(unbiased=False))
    return RewardScale(float(scores.mean()), max(std, FLOOR * everything))


def check_answers(count: int) -> None:
    """Raise DataError where there are fewer different held-out right answers than a scale needs."""
    if count < MIN_ANSWERS:
        raise DataError(
            f"reward: {count} different held-out answers fit into its packed sequences, and the scale of the rewards "
            f"needs at least {MIN_ANSWERS}. Give more text or more [[data]], or raise tokenize.seq_len"
        )
