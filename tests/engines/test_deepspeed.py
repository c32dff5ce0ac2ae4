"""DeepSpeed against the native engine: the same losses, norms, weights and states, forth and back."""

from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import GroundupError
from groundup.core.runtime import Layout
from groundup.model.architectures.llama import Llama
from groundup.model.architectures.qwen3 import Qwen3
from groundup.model.architectures.qwen3_moe import Qwen3MoE
from groundup.parallel.engines.deepspeed import DeepSpeed
from groundup.parallel.launcher import launch
from groundup.train.pretrain import Pretrain
from ranks_helpers import pretrainings
from training_helpers import Inputs, inputs, recipe

pytest.importorskip("deepspeed", reason="needs the extra `deepspeed`: make test-engines")
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
    with_engines,
)

pytestmark = pytest.mark.engines
ENGINES = {
    "zero-1": DeepSpeed(stage=1),
    "zero-2": DeepSpeed(stage=2),
    "zero-2-offload": DeepSpeed(stage=2, offload="optimizer"),
    "zero-3": DeepSpeed(stage=3),
    "zero-3-offload": DeepSpeed(stage=3, offload="all"),
}
SITES = {name: HERE.model_copy(update={"engine": engine}) for name, engine in ENGINES.items()}


# Odd sizes: parameters don't divide by the ranks.
CASES = recipes(
    {
        "llama": Llama(d_model=18, n_heads=3),
        "tied": Qwen3(d_model=16, n_heads=2, tie_embeddings=True),
        "moe": Qwen3MoE(d_model=16, n_heads=2),
    },
)


def one(name: str, **changes: Any) -> dict[str, Pretrain]:
    return {name: CASES[name].model_copy(update=changes)}


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Inputs]:
    """All cases with the native engine on one rank."""
    folder = tmp_path_factory.mktemp("native")
    given = inputs(folder)
    pretrainings(CASES, HERE, folder, given)
    return folder, given


def test_losses_norms_and_weights_are_those_of_native(native: tuple[Path, Inputs], tmp_path: Path) -> None:
    reference, given = native
    launch(with_engines, (SITES, CASES, tmp_path, given), 2, TIMEOUT)
    for engine in SITES:
        for name in CASES:
            agree(reference, tmp_path / engine, name)
            same_checkpoint(reference, tmp_path / engine, name)


def test_a_state_moves_from_engine_to_engine(native: tuple[Path, Inputs], tmp_path: Path) -> None:
    """ZeRO-3 x 2, native x 2, ZeRO-2 x 2, native x 1: each takes some steps of the same training."""
    case = {"tied": CASES["tied"]}
    hands_over(case, (SITES["zero-3"], HERE, SITES["zero-2"]), native[0], tmp_path, native[1])


def test_annealing_goes_on_from_the_others_stable_checkpoint(
    native: tuple[Path, Inputs], tmp_path: Path
) -> None:
    anneals_both_ways(CASES["llama"], SITES["zero-3"], tmp_path, native[1])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_forgotten_gradient_leaves_nothing_behind(precision: str) -> None:
    nothing_stays(ENGINES, precision, Layout())


def test_one_rank_needs_no_process_group(native: tuple[Path, Inputs], tmp_path: Path) -> None:
    launch(one_rank, (pretrainings, (one("llama"), SITES["zero-3"], tmp_path, native[1])), 1, TIMEOUT)
    agree(native[0], tmp_path, "llama")


@pytest.mark.parametrize(
    ("change", "layout", "said"),
    [
        ({}, {"tensor": 2}, r"runtime.layout.tensor = 2: .*Set tensor = 1"),
        ({"optimizer": recipe(1).optimizer}, {}, r'Set pretrain.optimizer.use = "adamw"'),
    ],
)
def test_what_it_cannot_do_is_said(
    native: tuple[Path, Inputs], tmp_path: Path, change: dict[str, Any], layout: dict[str, int], said: str
) -> None:
    runtime = SITES["zero-3"].model_copy(update={"layout": Layout(**layout)})
    with pytest.raises(GroundupError, match=said):
        launch(pretrainings, (one("llama", **change), runtime, tmp_path, native[1]), 2, TIMEOUT)
