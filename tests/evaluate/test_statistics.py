"""Intervals cover what they should, and are a pure function of numbers and seed."""

import numpy as np
import pytest

from groundup.evaluate.statistics import bootstrap, bootstrap_ratio, paired_difference


def test_an_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        found = bootstrap(generator.normal(3.0, 2.0, 60).tolist(), seed=trial, resamples=400)
        covered += found.low <= 3.0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def clustered(
    generator: np.random.Generator, clusters: int = 22, each: int = 9
) -> tuple[list[float], list[int]]:
    """Numbers with mean 0 of which those of one cluster share most of their deviation."""
    shared = np.repeat(generator.normal(0, 1, clusters), each)
    values = shared + generator.normal(0, 1, clusters * each)
    return values.tolist(), np.repeat(np.arange(clusters), each).tolist()


def test_clustered_intervals_cover_where_independent_ones_do_not() -> None:
    generator = np.random.default_rng(3)
    by_cluster = by_item = 0
    for trial in range(300):
        values, clusters = clustered(generator)
        found = bootstrap(values, seed=trial, resamples=400, clusters=clusters)
        by_cluster += found.low <= 0 <= found.high
        found = bootstrap(values, seed=trial, resamples=400)
        by_item += found.low <= 0 <= found.high
    assert 0.92 <= by_cluster / 300 <= 0.99
    assert by_item / 300 < 0.8


def test_every_item_its_own_cluster_is_the_plain_interval() -> None:
    numbers = np.random.default_rng(4).normal(0, 1, 40).tolist()
    assert bootstrap(numbers, clusters=range(40)) == bootstrap(numbers)
    assert paired_difference(numbers, [0.0] * 40, clusters=range(40)) == bootstrap(numbers)


def test_the_mean_is_over_items_not_over_clusters() -> None:
    assert bootstrap([1, 1, 1, 5], clusters=["a", "a", "a", "b"]).mean == 2.0


def test_values_without_a_cluster_are_refused() -> None:
    with pytest.raises(ValueError, match="3 values and 2 clusters"):
        bootstrap([1, 2, 3], clusters=["a", "b"])


def test_it_is_near_the_normal_interval_for_many_numbers() -> None:
    numbers = np.random.default_rng(1).normal(0, 1, 2000)
    found = bootstrap(numbers.tolist())
    assert found.high - found.low == pytest.approx(2 * 1.96 * numbers.std() / 2000**0.5, rel=0.1)


def test_pairs_give_a_narrower_interval_than_their_difference_of_means() -> None:
    generator = np.random.default_rng(2)
    before = generator.normal(0, 5, 100)
    after = before + 1 + generator.normal(0, 0.1, 100)
    found = paired_difference(after.tolist(), before.tolist())
    assert 0.9 < found.low < found.mean < found.high < 1.1


def test_the_same_numbers_and_seed_give_the_same_interval() -> None:
    assert bootstrap([1, 2, 5], seed=1) == bootstrap([1, 2, 5], seed=1)
    assert bootstrap([4.0]).bounds == [4.0, 4.0]


def test_a_ratio_weighs_by_the_denominator() -> None:
    assert bootstrap_ratio([1, 9], [1, 3]).mean == pytest.approx(10 / 4)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        bootstrap([])
    with pytest.raises(ValueError, match="pairs are needed"):
        paired_difference([1.0], [])
