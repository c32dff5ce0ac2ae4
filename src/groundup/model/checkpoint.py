"""A model as a folder that transformers, vLLM and our converters read.

in:  a Decoder or a ScalarModel, and its tokenizer
out: model.safetensors, config.json, generation_config.json, tokenizer.json, tokenizer_config.json; and back
"""

import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from groundup.core.durable import write_bytes, write_json
from groundup.core.errors import DataError
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.heads import ScalarModel
from groundup.model.published import config_json, own_tensors, published_tensors, read_config_json
from groundup.tokens.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
NAMED = 4
"""Tensors named in a message; of more it says how many."""

Model = TypeVar("Model", Decoder, ScalarModel)


def save_model(
    folder: Path,
    model: Decoder | ScalarModel,
    tokenizer: Tokenizer | None = None,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write weights and config.json and, with a tokenizer, everything a runtime needs to talk to the model.

    weights: the model's state dict, where it isn't `model.state_dict()`, as with sharded parameters.
    The bytes depend on the weights and the config alone.
    """
    # One write through our durable path: safetensors' own file writer leaves mode 0600.
    tensors = model.state_dict() if weights is None else weights
    if isinstance(model, Decoder):
        tensors = published_tensors(model.config, tensors)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    config = config_json(model.config)
    if isinstance(model, ScalarModel):
        config["architectures"] = ["ScalarModel"]
    if tokenizer is not None:
        ids = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.pad}
        config |= ids
        ends = [tokenizer.eos, tokenizer.end_of_turn]
        write_json(folder / "generation_config.json", ids | {"eos_token_id": ends})
        tokenizer.save(folder)
    write_json(folder / CONFIG, config)


def load_decoder(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Decoder:
    """Read a decoder; `dtype` is its compute dtype, its parameters are fp32."""
    model = Decoder(read_config(folder))
    return _filled(model, folder, device, dtype)


def load_scalar_model(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> ScalarModel:
    """Read a reward model or critic; `dtype` is its compute dtype, its parameters are fp32."""
    model = ScalarModel(read_config(folder))
    return _filled(model, folder, device, dtype)


def read_config(folder: Path) -> DecoderConfig:
    """The decoder that a folder's config.json describes. Raises DataError where it can't be computed here."""
    path = folder / CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return read_config_json(config)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no model config that can be read: {error!r}") from None


def _filled(model: Model, folder: Path, device: torch.device | str, dtype: torch.dtype) -> Model:
    tensors = read_tensors(folder)
    try:
        load_strictly(model, own_tensors(model.config, tensors) if isinstance(model, Decoder) else tensors)
    except (ValueError, KeyError) as error:
        what = f"missing: {error.args[0]}" if isinstance(error, KeyError) else error
        raise DataError(
            f"{folder / WEIGHTS} does not hold the weights that {CONFIG} describes: {what}"
        ) from None
    model.compute_dtype = dtype
    return model.to(device).eval()


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's safetensors files, of one or of several. Raises DataError naming the file."""
    index = folder / INDEX
    try:
        names = (
            sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else [WEIGHTS]
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DataError(f"{index} can't be read: {error!r}") from None
    tensors: dict[str, torch.Tensor] = {}
    for name in names:
        if Path(name).name != name:
            raise DataError(f"{index} names {name!r}, which lies outside of its folder")
        try:
            tensors |= load_file(folder / name)
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"{folder / name} does not hold the weights that {CONFIG} describes: {error}"
            ) from None
    return tensors


def load_strictly(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Fill every parameter, fp32. Raises ValueError naming what is missing, left over or of another shape."""
    wanted = model.state_dict()
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted.keys() & tensors.keys()
        if tensors[name].shape != wanted[name].shape
    ]
    problems = {
        "missing": sorted(wanted.keys() - tensors.keys()),
        "left over": sorted(tensors.keys() - wanted.keys()),
        "of another shape": sorted(shapes),
    }
    if any(problems.values()):
        raise ValueError("; ".join(f"{what}: {_few(names)}" for what, names in problems.items() if names))
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=True)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
