"""Megatron-Core against the native engine: the same losses, norms, weights and states, forth and back."""

from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import GroundupError
from groundup.core.runtime import Layout, Runtime
from groundup.model.architectures.llama import Llama
from groundup.model.architectures.olmo3 import Olmo3
from groundup.model.architectures.qwen3 import Qwen3
from groundup.parallel.engines.megatron import Megatron
from groundup.parallel.launcher import launch
from groundup.train.pretrain import Pretrain
from ranks_helpers import pretrainings
from training_helpers import Inputs, inputs, recipe

pytest.importorskip("megatron.core", reason="needs the extra `megatron`: make test-engines")
from engines_helpers import (
    HERE,
    TIMEOUT,
    agree,
    anneals_both_ways,
    hands_over,
    nothing_stays,
    one_rank,
    recipes,
    same_checkpoint,
    with_engine,
)

pytestmark = pytest.mark.engines
# The vocabulary has an odd number of tokens: ranks of the axis `tensor` get one that is none.
CASES = recipes(
    {
        "llama": Llama(d_model=16, n_heads=4, n_kv_heads=2),
        "tied": Qwen3(d_model=16, n_heads=4, n_kv_heads=2, tie_embeddings=True),
    },
)


def runtime(**axes: int) -> Runtime:
    return HERE.model_copy(update={"engine": Megatron(), "layout": Layout(**axes)})


def one(name: str, **changes: Any) -> dict[str, Pretrain]:
    return {name: CASES[name].model_copy(update=changes)}


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Inputs]:
    """All cases with the native engine on one rank."""
    folder = tmp_path_factory.mktemp("native")
    given = inputs(folder)
    metrics = pretrainings(CASES, HERE, folder, given)
    assert metrics["llama"]["decoder"]["vocab_size"] % 2
    return folder, given


@pytest.mark.parametrize(
    ("ranks", "axes"),
    [
        (2, {"tensor": 2}),
        (2, {"pipeline": 2}),
        (2, {}),
        (4, {"tensor": 2, "pipeline": 2}),
        (4, {"tensor": 2}),
    ],
    ids=str,
)
def test_losses_norms_and_weights_are_those_of_native(
    native: tuple[Path, Inputs], tmp_path: Path, ranks: int, axes: dict[str, int]
) -> None:
    reference, given = native
    launch(with_engine, (CASES, runtime(**axes), tmp_path, given), ranks, TIMEOUT)
    for name in CASES:
        agree(reference, tmp_path, name)
        same_checkpoint(reference, tmp_path, name)


def test_a_state_moves_from_engine_to_engine(native: tuple[Path, Inputs], tmp_path: Path) -> None:
    """Tensor x 2, native x 2, pipeline x 2, native x 1: each takes some steps of the same training."""
    case = {"tied": CASES["tied"]}
    hands_over(case, (runtime(tensor=2), HERE, runtime(pipeline=2)), native[0], tmp_path, native[1])


def test_annealing_goes_on_from_the_others_stable_checkpoint(
    native: tuple[Path, Inputs], tmp_path: Path
) -> None:
    anneals_both_ways(CASES["llama"], runtime(tensor=2), tmp_path, native[1])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("axes", [{"tensor": 2}, {"pipeline": 2}], ids=str)
def test_a_forgotten_gradient_leaves_nothing_behind(precision: str, axes: dict[str, int]) -> None:
    nothing_stays({"megatron": Megatron()}, precision, Layout(**axes))


def test_one_rank_needs_no_process_group(native: tuple[Path, Inputs], tmp_path: Path) -> None:
    launch(one_rank, (with_engine, (one("llama"), runtime(), tmp_path, native[1])), 1, TIMEOUT)
    agree(native[0], tmp_path, "llama")


@pytest.mark.parametrize(
    ("change", "axes", "said"),
    [
        ({}, {"replicate": 2}, r"runtime.layout.replicate = 2: .*Set replicate = 1"),
        ({"optimizer": recipe(1).optimizer}, {"tensor": 2}, r'Set pretrain.optimizer.use = "adamw"'),
        (
            {"architecture": Olmo3(d_model=16, n_heads=2)},
            {"tensor": 2},
            "this decoder has norms after the layers",
        ),
        ({"depth": 3}, {"pipeline": 2}, "pipeline = 2 does not divide the 3 layers"),
    ],
)
def test_what_it_cannot_do_is_said(
    native: tuple[Path, Inputs], tmp_path: Path, change: dict[str, Any], axes: dict[str, int], said: str
) -> None:
    with pytest.raises(GroundupError, match=said):
        launch(with_engine, (one("llama", **change), runtime(**axes), tmp_path, native[1]), 2, TIMEOUT)
