"""The scale of rewards from few held-out answers, against the standard deviation of all scores."""

import statistics

import pytest
import torch

from groundup.align.reward_scale import FLOOR, MIN_ANSWERS, check_answers, reward_scale
from groundup.core.errors import DataError, TrainingError

WRONG = torch.linspace(-3.0, 0.0, 8)


def test_the_scale_is_that_of_the_different_right_answers() -> None:
    right = torch.tensor([1.0, 2.0, 3.0, 4.0, 1.0, 1.0, 1.0, 1.0])
    scale = reward_scale(right, WRONG, [0, 1, 2, 3, 0, 0, 0, 0])
    assert scale.mean == pytest.approx(2.5)
    assert scale.std == pytest.approx(statistics.pstdev([1, 2, 3, 4]))


def test_answers_with_almost_equal_scores_do_not_make_rewards_of_thousands() -> None:
    right = 1.0 + torch.arange(8) * 1e-6
    scale = reward_scale(right, WRONG, range(8))
    spread = statistics.pstdev([*right.tolist(), *WRONG.tolist()])
    assert scale.std == pytest.approx(FLOOR * spread)
    assert abs((float(WRONG[0]) - scale.mean) / scale.std) < 30


def test_too_few_different_answers_are_refused_with_their_number() -> None:
    with pytest.raises(DataError, match=f"reward: 2 different held-out answers .* at least {MIN_ANSWERS}"):
        reward_scale(torch.arange(8.0), WRONG, [0, 1] * 4)
    check_answers(MIN_ANSWERS)


def test_equal_scores_are_refused() -> None:
    with pytest.raises(TrainingError, match="all 16 held-out answers the same score"):
        reward_scale(torch.ones(8), torch.ones(8), range(8))
