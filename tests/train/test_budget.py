"""What a training reads, against a count of the items that its steps take."""

import pytest

from groundup.tokens.loader import sample_indices
from groundup.train.budget import training_budget
from groundup.train.pretrain import Pretrain, pretrain_budget


@pytest.mark.parametrize(
    ("steps", "rows", "per_step"), [(3, 20, 4), (5, 20, 4), (7, 20, 4), (1, 3, 3), (2, 7, 5)]
)
def test_epochs_and_unread_share_are_those_of_the_rows_that_the_steps_take(
    steps: int, rows: int, per_step: int
) -> None:
    budget = training_budget(rows, per_step, {"tokens": steps, "max_epochs": 100})
    taken = [int(row) for step in range(steps) for row in sample_indices(rows, per_step, step, seed=0)]
    assert budget.epochs == pytest.approx(len(taken) / rows)
    assert budget.unread_share == pytest.approx(1 - len(set(taken)) / rows)


def test_the_limit_that_ends_the_training_is_named() -> None:
    assert training_budget(10, 2, {"tokens": 4, "max_epochs": 9}).ended_by == "tokens"
    short = training_budget(10, 2, {"tokens": 4, "max_epochs": 3})
    assert (short.steps, short.ended_by) == (3, "max_epochs")
    assert training_budget(10, 2, {"epochs": 0, "max_tokens": 3}).steps == 1


def test_data_that_is_not_packed_is_never_read() -> None:
    budget = training_budget(10, 5, {"epochs": 4, "max_tokens": 2}, packed_share=0.25)
    assert (budget.epochs, budget.unread_share, budget.ended_by) == (0.25, 0.75, "max_tokens")


def test_the_sentence_says_epochs_the_unread_share_and_the_limit() -> None:
    sentence = training_budget(100, 10, {"tokens": 4}).sentence("training sequences", 1_300_000)
    assert (
        sentence == "reads the training sequences 0.40 times, 60% of them never: tokens = 1,300,000 ends it"
    )


def test_max_epochs_ends_a_pretraining_whose_corpus_is_too_small() -> None:
    recipe = Pretrain(tokens=10_000, max_epochs=2, batch_tokens=128).resolved()
    budget = pretrain_budget(recipe, rows=32, batch_rows=2, seq_len=64)
    assert (budget.steps, budget.ended_by, budget.unread_share) == (32, "max_epochs", 0.0)
    assert pretrain_budget(recipe, rows=320, batch_rows=2, seq_len=64).ended_by == "tokens"
