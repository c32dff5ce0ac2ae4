"""A checkpoint folder that isn't what it says is refused in words."""

import json
from pathlib import Path

import pytest
import torch
from decoders import LLAMA, QWEN3, decoder
from safetensors.torch import save

from groundup.core.errors import DataError
from groundup.model.checkpoint import load_decoder, load_value_model, save_model, write_tensors
from groundup.model.value_head import ValueModel


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_model(tmp_path / name, decoder(LLAMA))
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_scalar_model_comes_back(tmp_path: Path) -> None:
    model = ValueModel(QWEN3)
    model.init_from_decoder(decoder(QWEN3), seed=2)
    save_model(tmp_path, model)
    again = load_value_model(tmp_path)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(model.values(ids), again.values(ids))


def test_missing_config_torn_weights_and_other_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"config\.json"):
        load_decoder(tmp_path)
    save_model(tmp_path, decoder(QWEN3))
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"model\.safetensors does not hold the weights"):
        load_decoder(tmp_path)
    weights.write_bytes(whole)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    with pytest.raises(DataError, match="does not hold the weights"):
        load_decoder(tmp_path)


def test_tensors_are_written_as_safetensors_own_save_writes_them(tmp_path: Path) -> None:
    tensors = {
        "b": torch.randn(3, 5),
        "a.scalar": torch.tensor(3.0),
        "half": torch.randn(7).bfloat16(),
        "ids": torch.arange(6).view(2, 3),
        "turned": torch.randn(4, 2).t(),
        "none": torch.empty(0, 3),
    }
    write_tensors(tmp_path / "x.safetensors", tensors, {"format": "pt"})
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    assert (tmp_path / "x.safetensors").read_bytes() == save(plain, metadata={"format": "pt"})
