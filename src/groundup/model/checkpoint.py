"""Checkpoint folders that transformers, vLLM and the converters load.

in:  a Decoder or a ValueModel, and its tokenizer
out: model.safetensors, config.json, generation_config.json, tokenizer.json, tokenizer_config.json; and back
"""

import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from groundup.core.atomic_io import atomic_replace, write_json
from groundup.core.errors import DataError
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.hf_config import config_from_hf, config_to_hf, tensors_from_hf, tensors_to_hf
from groundup.model.value_head import ValueModel
from groundup.tokens.tokenizer import Tokenizer

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
MAX_NAMES = 4
"""Most tensors listed in a message."""

SAFETENSORS_DTYPES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
}

Tensors = dict[str, Tensor]
Model = TypeVar("Model", Decoder, ValueModel)

VALUE_MODEL = "ValueModel"
"""The architecture in the config.json of reward models and critics."""


def save_model(
    folder: Path, model: Decoder | ValueModel, tokenizer: Tokenizer | None = None, chat: bool = False
) -> None:
    """Writes weights and config.json and, with a tokenizer, all files that a runtime needs.

    chat: the model was trained on conversations: its eos token is the end of a turn, and it has a chat template.
    The bytes depend on the weights, the config and `chat` alone.
    """
    if isinstance(model, Decoder):
        save_decoder(folder, model.config, model.state_dict(), tokenizer, chat)
    else:
        config_json = config_to_hf(model.config) | {"architectures": [VALUE_MODEL]}
        _write_folder(folder, config_json, model.state_dict())
        if tokenizer is not None:
            tokenizer.save(folder)


def save_decoder(
    folder: Path,
    config: DecoderConfig,
    weights: Tensors,
    tokenizer: Tokenizer | None = None,
    chat: bool = False,
) -> None:
    """`save_model` of a decoder given by its config and weights; tensors on disk are copied one by one."""
    config_json = config_to_hf(config)
    if tokenizer is not None and tokenizer.imported is not None:
        config_json |= tokenizer.imported.config_ids
        tokenizer.save(folder)
    elif tokenizer is not None:
        stop_ids = [tokenizer.eos, tokenizer.end_of_turn]
        if chat:
            stop_ids.reverse()
        ids = {"bos_token_id": tokenizer.bos, "eos_token_id": stop_ids[0], "pad_token_id": tokenizer.pad}
        config_json |= ids
        write_json(folder / "generation_config.json", ids | {"eos_token_id": stop_ids})
        tokenizer.save(folder, chat, config.max_seq_len)
    _write_folder(folder, config_json, tensors_to_hf(config, weights))


def _write_folder(folder: Path, config_json: dict[str, Any], tensors: Tensors) -> None:
    write_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
    write_json(folder / CONFIG, config_json)


def write_tensors(path: Path, tensors: Tensors, metadata: dict[str, str]) -> None:
    """Write the same bytes as `safetensors.torch.save`, without a copy of all tensors in memory."""
    largest_first = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in largest_first:
        start, end = end, end + tensors[name].nbytes
        dtype = SAFETENSORS_DTYPES[tensors[name].dtype]
        header[name] = {"dtype": dtype, "shape": list(tensors[name].shape), "data_offsets": [start, end]}
    header_bytes = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    header_bytes += b" " * (-len(header_bytes) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(len(header_bytes).to_bytes(8, "little") + header_bytes)
        for name in largest_first:
            # A view of its bytes: NumPy has no bfloat16.
            file.write(tensors[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    atomic_replace(temporary, path)


def load_decoder(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Decoder:
    """Read a decoder; `dtype` is its compute dtype, its parameters are fp32."""
    model = Decoder(read_config(folder))
    return _load_weights(model, folder, device, dtype)


def load_value_model(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> ValueModel:
    """Read a reward model or critic; `dtype` is its compute dtype, its parameters are fp32."""
    model = ValueModel(read_config(folder))
    return _load_weights(model, folder, device, dtype)


def read_config(folder: Path) -> DecoderConfig:
    """The decoder config of a folder's config.json. Raises DataError where it is not supported."""
    path = folder / CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return config_from_hf(config)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a readable model config: {error!r}") from None


def _load_weights(model: Model, folder: Path, device: torch.device | str, dtype: torch.dtype) -> Model:
    tensors = read_tensors(folder)
    try:
        load_strictly(
            model, tensors_from_hf(model.config, tensors) if isinstance(model, Decoder) else tensors
        )
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
            raise DataError(f"{index} names {name!r}, which is outside its folder")
        try:
            tensors |= load_file(folder / name)
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"{folder / name} does not hold the weights that {CONFIG} describes: {error}"
            ) from None
    return tensors


def load_strictly(model: nn.Module, tensors: Tensors) -> None:
    """Fill every parameter, fp32. Raises ValueError naming what is missing, unexpected or of another shape."""
    check_same_tensors(model.state_dict(), tensors)
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=True)


def check_same_tensors(expected: Tensors, tensors: Tensors) -> None:
    """Raises ValueError where names or shapes differ, naming what is missing, unexpected or of another shape."""
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected.keys() & tensors.keys()
        if tensors[name].shape != expected[name].shape
    ]
    problems = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - expected.keys()),
        "of another shape": sorted(shapes),
    }
    if any(problems.values()):
        raise ValueError(
            "; ".join(f"{what}: {_first_names(names)}" for what, names in problems.items() if names)
        )


def _first_names(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
