"""What needs none of the engines' extras: how a missing one is said, what a recipe refuses."""

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from groundup.core.errors import GroundupError
from groundup.core.runtime import Layout, Runtime
from groundup.model.architectures.qwen3 import Qwen3
from groundup.model.decoder import Decoder
from groundup.parallel.context import SINGLE, current_context
from groundup.parallel.engine import EngineSpec
from groundup.parallel.engines._external import library
from groundup.parallel.engines.deepspeed import DeepSpeed
from groundup.parallel.engines.megatron import Megatron, require_cuda
from groundup.parallel.hardware import choose_hardware
from groundup.parallel.launcher import launch
from groundup.parallel.sharded_checkpoint import consolidate
from groundup.train.optimizers.adamw import AdamW
from groundup.train.validate import token_loss


@pytest.mark.parametrize(("engine", "name"), [(DeepSpeed(), "deepspeed"), (Megatron(), "megatron.core")])
def test_a_missing_library_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, engine: DeepSpeed | Megatron, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    library.cache_clear()
    hardware = choose_hardware(Runtime(device="cpu", threads=1, compile="off"), "fp32")
    model = Decoder(Qwen3(d_model=16, n_heads=2).config(1, vocab_size=64, max_seq_len=8))
    job = EngineSpec(
        model,
        partial(model.init_tensor, seed=0),
        hardware,
        SINGLE,
        Layout(),
        AdamW(lr=0.1).build,
        lambda *of: (token_loss(*of), {}),
        1.0,
    )
    with pytest.raises(GroundupError, match=rf"pip install 'groundup\[{name.split('.')[0]}\]'"):
        engine.prepare(job)


def test_megatron_is_refused_on_a_cpu() -> None:
    with pytest.raises(GroundupError, match="needs an NVIDIA GPU"):
        require_cuda(torch.device("cpu"))


def test_weights_are_not_offloaded_where_every_rank_needs_them() -> None:
    with pytest.raises(ValidationError, match='offload = "all" needs stage = 3'):
        DeepSpeed(stage=2, offload="all")


def test_an_engine_is_named_in_the_blueprint() -> None:
    runtime = Runtime.model_validate({"engine": {"use": "deepspeed", "stage": 2, "offload": "optimizer"}})
    assert runtime.engine == DeepSpeed(stage=2, offload="optimizer")


def gathered(folder: Path) -> dict[str, list[float]]:
    """Tensors of which each rank has one alone, and one that both have; numbers among them."""
    world = current_context(Layout(), torch.device("cpu"))
    mine = {
        f"{world.rank}.number": torch.tensor(6.0 + world.rank),
        f"{world.rank}.row": torch.ones(2) + world.rank,
    }
    found = consolidate({"all.number": torch.tensor(5.0)} | mine, folder, world)
    return {name: [tensor.dim(), *tensor.flatten().tolist()] for name, tensor in found.items()}


def test_tensors_of_single_ranks_and_numbers_are_gathered(tmp_path: Path) -> None:
    assert launch(gathered, (tmp_path / "aside",), 2, 60.0) == {
        "all.number": [0, 5.0], "0.number": [0, 6.0], "0.row": [1, 1.0, 1.0], 
        "1.number": [0, 7.0], "1.row": [1, 2.0, 2.0],
    }  # fmt: skip
