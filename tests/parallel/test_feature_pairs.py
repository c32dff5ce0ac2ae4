"""Every pair of parallel features composes, to the numbers of one device, or is refused before training."""

import math
from dataclasses import replace
from itertools import combinations

import pytest

from feature_pairs_helpers import AXES, CONFIG, MICRO_BATCHES, OTHERS, Pair, PairResult, ranks_of, train_pairs
from groundup.core.errors import GroundupError
from groundup.core.runtime import Layout, Runtime
from groundup.parallel.compiling import can_compile
from groundup.parallel.launcher import launch
from training_helpers import one_thread  # noqa: F401  (a fixture)

TIMEOUT = 120.0
EXCLUSIVE = {("selective", "full")}
"""Values of one setting."""
PAIRS = [pair for pair in combinations(AXES + OTHERS, 2) if pair not in EXCLUSIVE]
MATHS = {"fp8", "lora", "expert"}
"""Features that change the numbers: a pair is compared with them on one device. `expert` is a decoder with experts."""


def on(ranks: int, compiled: bool = False) -> list[Pair]:
    return [pair for pair in PAIRS if ranks_of(pair) == ranks and ("compile" in pair) == compiled]


def reference(pair: Pair) -> Pair:
    return tuple("moe" if feature == "expert" else feature for feature in pair if feature in MATHS)


def fp8_products(pair: Pair) -> int:
    """Of a step, on rank 0: three products per matrix of two inner layers, of which a pipeline's rank has one."""
    if "fp8" not in pair:
        return 0
    matrices = 4 if "expert" in pair else 7
    products = (2 if "lora" in pair else 3) + ("full" in pair)  # frozen weights need no gradient
    return (1 if "pipeline" in pair else 2) * matrices * products * MICRO_BATCHES


@pytest.fixture(scope="module")
def references() -> dict[Pair, PairResult]:
    return train_pairs([*{reference(pair) for pair in PAIRS}, ("fp8",)])


def check(results: dict[Pair, PairResult], references: dict[Pair, PairResult]) -> None:
    for pair, result in results.items():
        assert not result.refused, f"{pair}: {result.refused}"
        expected = references[reference(pair)]
        # fp8's scales are those of each rank's part of a matrix.
        rel = 3e-2 if "fp8" in pair else 1e-5
        assert result.curve == pytest.approx(expected.curve, rel=rel), pair
        if "compile" not in pair:
            assert result.fp8_products == fp8_products(pair), pair


def test_the_references_differ_where_the_arithmetic_does(references: dict[Pair, PairResult]) -> None:
    curves = [result.curve for result in references.values()]
    assert all(math.isfinite(value) for curve in curves for value in curve)
    assert len(set(curves)) == len(curves)
    assert references[("fp8",)].fp8_products == fp8_products(("fp8",)) == 84


def test_pairs_on_one_rank(references: dict[Pair, PairResult]) -> None:
    check(train_pairs(on(1)), references)


@pytest.mark.cluster
@pytest.mark.parametrize("ranks", [2, 4])
def test_pairs_on_ranks(references: dict[Pair, PairResult], ranks: int) -> None:
    check(launch(train_pairs, (on(ranks),), ranks, TIMEOUT), references)


@pytest.mark.cluster
def test_compiled_pairs(references: dict[Pair, PairResult]) -> None:
    check(train_pairs(on(1, compiled=True)), references)
    check(launch(train_pairs, (on(2, compiled=True),), 2, 5 * TIMEOUT), references)


def test_fp8_refuses_matrices_that_tensor_parallel_leaves_unaligned() -> None:
    narrow = replace(CONFIG, d_ff=80)
    refused = launch(train_pairs, ([("fp8", "tensor")], narrow), 2, TIMEOUT)["fp8", "tensor"].refused
    assert "runtime.layout.tensor = 2 leaves a rank a matrix of 40 x 64" in refused


def test_fp8_refuses_a_decoder_without_inner_layers() -> None:
    refused = train_pairs([("fp8",)], replace(CONFIG, n_layers=2))["fp8",].refused
    assert 'precision = "fp8": this decoder has no matrix for it' in refused


def test_zero_bubble_refuses_compiling() -> None:
    layout = Layout(pipeline=2, schedule="zero_bubble")
    with pytest.raises(GroundupError, match="zero-bubble"):
        can_compile(Runtime(layout=layout, compile="on"), cuda=False)
