"""DeepSpeed against the native engine: the same losses, norms, weights and states, forth and back."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from groundup.core.errors import GroundupError
from groundup.core.site import Layout
from groundup.model.architectures.llama import Llama
from groundup.model.architectures.qwen3 import Qwen3
from groundup.model.architectures.qwen3_moe import Qwen3MoE
from groundup.parallel.engines.deepspeed import DeepSpeed
from groundup.parallel.engines.native import Native
from groundup.parallel.ranks import launch
from groundup.train.optimizers.adamw import AdamW
from groundup.train.pretrain import Pretrain
from ranks_world import pretrainings
from training_world import Inputs, inputs, recipe

pytest.importorskip("deepspeed", reason="needs the extra `deepspeed`: make test-engines")
from engines_world import HERE, agree, one_rank, recipes, repeated, same_checkpoint, with_engines

pytestmark = pytest.mark.engines
TIMEOUT = 120.0
STEPS = 10
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
    STEPS,
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
    reference, given = native
    for name, site, last in (("a", SITES["zero-3"], 3), ("b", HERE, 5), ("c", SITES["zero-2"], 7)):
        with pytest.raises(SystemExit):
            launch(pretrainings, (one("tied"), site, tmp_path / name, given, last), 2, TIMEOUT)
        shutil.copytree(tmp_path / name, tmp_path / chr(ord(name) + 1))
    said = pretrainings(one("tied"), HERE, tmp_path / "d", given)["tied"]["said"]
    assert f"continuing pretrain at step 7 of {STEPS}" in " ".join(said)
    agree(reference, tmp_path / "d", "tied")


def test_annealing_goes_on_from_the_others_stable_checkpoint(
    native: tuple[Path, Inputs], tmp_path: Path
) -> None:
    given, zero = native[1], SITES["zero-3"]
    stable = one("llama", schedule="wsd", decay=0.4)
    pretrainings(stable, HERE, tmp_path / "native", given)
    launch(pretrainings, (stable, zero, tmp_path / "zero", given), 2, TIMEOUT)
    folders = {name: tmp_path / name / "llama.part" / "stable" for name in ("native", "zero")}
    anneal = {
        name: one("llama", start=str(folder), warmup=0.0, optimizer=AdamW())
        for name, folder in folders.items()
    }
    pretrainings(anneal["native"], HERE, tmp_path / "native-native", given)
    pretrainings(anneal["zero"], HERE, tmp_path / "zero-native", given)
    launch(pretrainings, (anneal["native"], zero, tmp_path / "native-zero", given), 2, TIMEOUT)
    agree(tmp_path / "native-native", tmp_path / "zero-native", "llama", rel=1e-4)
    agree(tmp_path / "native-native", tmp_path / "native-zero", "llama")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_forgotten_gradient_leaves_nothing_behind(precision: str) -> None:
    """In bf16, too, gradients are those of native."""
    found = launch(repeated, (ENGINES | {"native": Native()}, precision, Layout()), 2, TIMEOUT)
    native = found["native"][0]
    for name, (first, again, after_nan, moved) in found.items():
        assert first == pytest.approx(native, rel=3e-2 if precision == "bf16" else 1e-5), name
        assert again == pytest.approx(first, rel=1e-6), name
        assert after_nan == pytest.approx(first, rel=1e-6), name
        assert not moved, name


def test_one_rank_needs_no_process_group(native: tuple[Path, Inputs], tmp_path: Path) -> None:
    launch(one_rank, (pretrainings, (one("llama"), SITES["zero-3"], tmp_path, native[1])), 1, TIMEOUT)
    agree(native[0], tmp_path, "llama")


@pytest.mark.parametrize(
    ("change", "layout", "said"),
    [
        ({}, {"tensor": 2}, r"site.layout.tensor = 2: .*Set tensor = 1"),
        ({"optimizer": recipe(1).optimizer}, {}, r'Set pretrain.optimizer.use = "adamw"'),
    ],
)
def test_what_it_cannot_do_is_said(
    native: tuple[Path, Inputs], tmp_path: Path, change: dict[str, Any], layout: dict[str, int], said: str
) -> None:
    site = SITES["zero-3"].model_copy(update={"layout": Layout(**layout)})
    with pytest.raises(GroundupError, match=said):
        launch(pretrainings, (one("llama", **change), site, tmp_path, native[1]), 2, TIMEOUT)
