"""Reward models on rankings by people: losses against formulas, all pairs in one step, and what is reported."""

import random
from pathlib import Path

import pytest
import torch
from align_helpers import SITE
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.align.align import train_with
from groundup.align.methods import MethodContext
from groundup.align.methods.reward import Reward
from groundup.align.ranking_batches import RenderedRanking, fitting, ranking_batches, ranking_loss
from groundup.align.ranking_objectives import plackett_luce, soft_bradley_terry
from groundup.align.reward_report import ScoredPair, calibration, length_only_accuracy, reward_report
from groundup.align.rollouts import BatchShape
from groundup.core.progress import Reporter
from groundup.core.records import Message, Ranking
from groundup.core.stage import Metrics, StageContext
from groundup.evaluate.alignment_data import AlignmentData
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.optimizers.muon import Muon

SHAPE = BatchShape(4, 16, 0)


@settings(max_examples=30, deadline=None)
@given(st.permutations([0.3, -1.2, 2.0, 0.7]))
def test_plackett_luce_is_the_probability_of_the_order(scores: list[float]) -> None:
    left, expected = torch.tensor(scores, dtype=torch.float64), 0.0
    for k in range(4):  # the best one is chosen among all, the next among the rest, ...
        expected -= float(torch.log_softmax(left[k:], dim=0)[0])
    ranks = torch.tensor([1, 2, 3, 4])
    assert float(plackett_luce(torch.tensor(scores), ranks)) == pytest.approx(expected, rel=1e-5)
    order = [2, 0, 3, 1]
    assert float(plackett_luce(torch.tensor(scores)[order], ranks[order])) == pytest.approx(
        expected, rel=1e-5
    )


def test_tied_responses_have_no_order_in_plackett_luce() -> None:
    scores = torch.tensor([0.3, -1.2, 2.0])
    pairs = sum(float(torch.log1p(torch.exp(scores[2] - scores[i]))) for i in (0, 1))
    assert float(plackett_luce(scores, torch.tensor([1, 1, 2]))) == pytest.approx(pairs, rel=1e-5)


def test_a_tie_is_a_target_of_one_half() -> None:
    better, worse = torch.tensor([1.5, -0.4]), torch.tensor([0.2, 0.9])
    loss = soft_bradley_terry(better, worse, torch.tensor([0.5, 0.9]), torch.tensor([0.0, 0.3]))
    p = torch.sigmoid(better - worse - torch.tensor([0.0, 0.3]))
    target = torch.tensor([0.5, 0.9])
    assert torch.allclose(loss, torch.nn.functional.binary_cross_entropy(p, target, reduction="none"))
    zero = torch.zeros(2, requires_grad=True)
    soft_bradley_terry(zero, zero.detach(), torch.tensor([0.5, 0.5]), torch.zeros(2)).sum().backward()
    assert torch.equal(zero.grad, torch.zeros(2))  # type: ignore[arg-type]


def ranking(number: int, ranks: tuple[int, ...], length: int = 3) -> RenderedRanking:
    ids = tuple([100 * number + response] * (length + response) for response in range(len(ranks)))
    return RenderedRanking(
        "a", f"g{number}", ids, ranks, lengths=tuple(length + i for i in range(len(ranks)))
    )


@pytest.mark.parametrize("loss", ["bradley_terry", "plackett_luce"])
def test_every_ranking_counts_the_same_whatever_its_number_of_pairs(loss: str) -> None:
    rankings = [ranking(1, (2, 1, 3, 3)), ranking(2, (1, 2)), ranking(3, (1, 1, 2))]
    scores = {100 * n + k: random.Random(100 * n + k).gauss(0, 1) for n in (1, 2, 3) for k in range(4)}
    (batch,) = ranking_batches(rankings, SHAPE, margin=0.2)
    ids = batch.packed.ids.flatten()[batch.last_positions].tolist()
    made = torch.tensor([scores[token] for token in ids])
    value, accuracy = ranking_loss(made, batch, loss, 0.1, 0.05)  # type: ignore[arg-type]
    expected, right = 0.0, 0.0
    for item in rankings:
        row = torch.tensor([scores[sequence[0]] for sequence in item.ids])
        pairs = item.pairs
        for i, j, target in pairs:
            margin = 0.2 if target == 1 else 0.0
            p, goal = torch.sigmoid(row[i] - row[j] - margin), 0.9 if target == 1 else 0.5
            if loss == "bradley_terry":
                expected -= float(goal * p.log() + (1 - goal) * (1 - p).log()) / len(pairs)
            expected += 0.05 * float(row[i] + row[j]) ** 2 / len(pairs)
            right += (float(row[i] > row[j]) if target == 1 else 0.5) / len(pairs)
        if loss == "plackett_luce":
            expected += float(plackett_luce(row, torch.tensor(item.ranks)))
    assert float(value) == pytest.approx(expected, rel=1e-5)
    assert float(accuracy) == pytest.approx(right, rel=1e-5)


def test_rankings_that_do_not_fit_together_are_left_out() -> None:
    kept = fitting([ranking(1, (1, 2), 15), ranking(2, (1, 2), 16), ranking(3, (1, 2, 3, 4, 5), 9)], SHAPE)
    assert [item.group for item in kept] == ["g1"]


def question(number: int) -> Ranking:
    """The response with the question's number is better than one without, which is better than another number."""
    noise = random.Random(number)
    texts = (f"yes {number % 7}.", "perhaps so.", "no never at all.")
    order = noise.sample(range(3), 3)
    return Ranking(
        id=str(number),
        group=f"g{number}",
        source="people",
        split="held_out" if number % 4 == 0 else "train",
        prompt=(Message("user", f"What is {number % 7}?"),),
        responses=tuple((Message("assistant", texts[i]),) for i in order),
        ranks=tuple(i + 1 for i in order),
    )


def trained(
    folder: Path, start: Path, tokenizer: Tokenizer, recipe: Reward, rankings: list[Ranking]
) -> Metrics:
    stage = StageContext(folder, Reporter(quiet=True))
    return train_with(
        recipe, MethodContext(SITE, stage, tokenizer, AlignmentData(rankings), {"start": start})
    )


@pytest.mark.parametrize("loss", ["bradley_terry", "plackett_luce"])
def test_a_reward_model_learns_what_people_ranked(
    loss: str, start: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    recipe = Reward(
        epochs=6,
        batch_rows=8,
        optimizer=Muon(lr=0.02, adam_lr=0.02),
        precision="fp32",
        loss=loss,
        center_coef=0.01,
    )
    metrics = trained(tmp_path, start, tokenizer, recipe, [question(n) for n in range(80)])
    assert metrics["rankings"] == 60 and metrics["pairs"] == 180 and metrics["held_out_pairs"] == 60
    assert metrics["accuracy"] > 0.95 and metrics["accuracy_interval"][0] > 0.8
    assert metrics["accuracy_chance"] == 0.5 and set(metrics["accuracy_by_kind"]) == {"people"}
    assert metrics["accuracy_length_only"] > 0.9  # the better ones are shorter, and training says so


def pairs(right: int, wrong: int, length_difference: int = 0) -> list[ScoredPair]:
    return [
        ScoredPair("a", f"g{n}", 1.0 if n < right else -1.0, length_difference) for n in range(right + wrong)
    ]


def test_a_model_near_chance_is_warned_about() -> None:
    warnings: list[str] = []
    reward_report([], pairs(52, 48), 0, warnings.append)
    assert len(warnings) == 1 and "near chance: accuracy 0.520" in warnings[0]
    longer = [ranking(n, (2, 1)) for n in range(5)]  # the second response is longer and better
    reward_report(longer, pairs(95, 5, 1), 0, warnings.append)
    assert len(warnings) == 2 and "not clearly better than the length of a response" in warnings[1]
    reward_report(longer, pairs(95, 5, -1), 0, warnings.append)
    assert len(warnings) == 2


def test_length_alone_follows_what_training_says() -> None:
    longer, shorter = [ranking(1, (2, 1))], [ranking(1, (1, 2))]
    held_out = pairs(1, 1, 1) + pairs(1, 0, -1) + pairs(1, 0, 0)
    assert length_only_accuracy(longer, held_out) == (2 + 0.5) / 4
    assert length_only_accuracy(shorter, held_out) == (1 + 0.5) / 4


def test_calibration_compares_certainty_with_accuracy() -> None:
    scored = [ScoredPair("a", str(n), 0.1, 0) for n in range(10)] + [
        ScoredPair("a", str(n), -5.0, 0) for n in range(4)
    ]
    low, high = calibration(scored)
    assert (low["accuracy"], low["pairs"], high["accuracy"], high["pairs"]) == (1.0, 10, 0.0, 4)
    assert low["certainty"] == pytest.approx(0.525, abs=1e-3) and high["certainty"] > 0.99
