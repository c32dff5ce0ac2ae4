"""Every engine on one GPU: ten steps that are the native engine's, and a checkpoint that loads."""

import importlib.util
from pathlib import Path

import pytest
from gpu_helpers import needs_gpu

from groundup.core.recipe import Recipe
from groundup.model.architectures.qwen3 import Qwen3
from groundup.model.checkpoint import load_decoder
from groundup.parallel.engines.deepspeed import DeepSpeed
from groundup.parallel.engines.megatron import Megatron
from groundup.parallel.engines.native import Native
from groundup.parallel.launcher import launch
from groundup.train.optimizers.adamw import AdamW
from ranks_helpers import curve, pretrainings
from training_helpers import SITE, inputs, recipe

pytestmark = needs_gpu
TIMEOUT = 300.0
LIBRARIES = {DeepSpeed: "deepspeed", Megatron: "megatron"}


@pytest.mark.parametrize(
    "engine", [DeepSpeed(stage=1), DeepSpeed(stage=2), DeepSpeed(stage=3), Megatron()], ids=str
)
def test_ten_steps_are_those_of_the_native_engine(engine: Recipe, tmp_path: Path) -> None:
    library = LIBRARIES[type(engine)]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} isn't installed: pip install 'groundup[{library}]'")
    shape = Qwen3(d_model=32, n_heads=2)
    case = recipe(10).model_copy(
        update={"optimizer": AdamW(lr=0.01), "depth": 2, "architecture": shape, "precision": "fp32"}
    )
    given, runtime = inputs(tmp_path), SITE.model_copy(update={"device": "cuda", "checkpoint_seconds": 600.0})
    for name, trainer in (("native", Native()), ("other", engine)):
        where = runtime.model_copy(update={"engine": trainer})
        launch(pretrainings, ({name: case}, where, tmp_path, given), 1, TIMEOUT)
    native, other = curve(tmp_path, "native"), curve(tmp_path, "other")
    assert len(native) == 10
    for one, two in zip(native, other, strict=True):
        assert two == pytest.approx(one, rel=1e-3)
    assert load_decoder(tmp_path / "other.part").config == load_decoder(tmp_path / "native.part").config
