"""Export to and import from Hugging Face model folders, as transformers and vLLM read them.

in:  a checkpoint folder, or a Hugging Face model folder (config.json and safetensors, sharded or not)
out: the other of the two, published atomically

Only safetensors are read: unpickling can execute arbitrary code. Unsupported keys of config.json are refused.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor

from groundup.core.atomic_io import (
    explain_disk_errors,
    publish_dir,
    temp_path,
    write_bytes,
    write_json,
)
from groundup.core.errors import DataError, GroundupError
from groundup.export.vocabulary import resize_vocabulary, tokenizer_from_hf
from groundup.model.architectures import Tensors
from groundup.model.checkpoint import CONFIG, INDEX, WEIGHTS, load_decoder, save_model
from groundup.model.hf_config import config_to_hf, tensors_to_hf

Dtype = Literal["fp32", "bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

GENERATION_CONFIG = "generation_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)
"""Tokenizer files of transformers."""
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
SHARD_BYTES = 5_000_000_000
"""Maximum size of a weights file."""


def export_huggingface(
    folder: Path, target: Path, dtype: Dtype = "fp32", max_shard_bytes: int = SHARD_BYTES
) -> None:
    """Export the checkpoint in `folder` to the new folder `target`.

    Raises GroundupError for a reward model, for switches that are not portable, and if `target` exists.
    """
    config_json = _read_json(folder / CONFIG)
    if "ScalarModel" in config_json.get("architectures", []):
        raise GroundupError(
            f"{folder} is a reward model or critic, which predicts a scalar instead of tokens and has no "
            "Hugging Face class. Export the policy instead"
        )
    model = load_decoder(folder)
    switches = model.config.unportable()
    if switches:
        raise GroundupError(
            f"{folder} cannot be exported: it was trained with {', '.join(switches)}, which no other runtime "
            "supports. Disable these keys in pretrain.architecture and train again, or use `groundup chat`"
        )
    tensors = tensors_to_hf(model.config, model.state_dict())
    tensors = {name: tensor.to(DTYPES[dtype]).contiguous() for name, tensor in tensors.items()}
    ids = {key: config_json[key] for key in SPECIAL_IDS if config_json.get(key) is not None}
    config = config_to_hf(model.config) | ids | {"dtype": str(DTYPES[dtype]).removeprefix("torch.")}
    with _new_folder(target, sum(_nbytes(tensor) for tensor in tensors.values())) as temporary:
        _write_shards(temporary, tensors, max_shard_bytes)
        write_json(temporary / CONFIG, config)
        write_json(temporary / GENERATION_CONFIG, ids)
        _copy(folder, temporary, (*TOKENIZER_FILES, GENERATION_CONFIG))


def import_huggingface(folder: Path, target: Path, control_tokens: bool = False) -> None:
    """Import the model in `folder` to the new folder `target`, as a checkpoint with fp32 weights.

    Tokenizer files and special ids are copied. control_tokens: append the control tokens of this package to the
    vocabulary, which training and chat need (see `vocabulary.py`).
    Raises DataError for weights that are missing, unexpected or pickled, for an unsupported config.json, and for a
    vocabulary that cannot take the control tokens.
    """
    config_json = _read_json(folder / CONFIG)
    if not (folder / WEIGHTS).exists() and not (folder / INDEX).exists():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        note = f" {pickled[0]} is a pickle, which can execute code and is not read." if pickled else ""
        raise DataError(
            f"{folder} has no {WEIGHTS}.{note} Load the model with transformers and save it with "
            "save_pretrained, which writes safetensors"
        )
    model, tokenizer = load_decoder(folder), None
    ids = {key: config_json[key] for key in SPECIAL_IDS if key in config_json}
    if control_tokens:
        tokenizer = tokenizer_from_hf(folder / TOKENIZER_FILES[0])
        model = resize_vocabulary(model, tokenizer, _eos_id(ids))
    size = sum(_nbytes(tensor) for tensor in model.state_dict().values())
    with _new_folder(target, size) as temporary:
        save_model(temporary, model, tokenizer)
        if tokenizer is None:
            write_json(temporary / CONFIG, _read_json(temporary / CONFIG) | ids)
            _copy(folder, temporary, (*TOKENIZER_FILES, GENERATION_CONFIG))


def _eos_id(ids: dict[str, Any]) -> int | None:
    """The eos_token_id; the first if there are several."""
    eos = ids.get("eos_token_id")
    return eos[0] if isinstance(eos, list) else eos


@contextmanager
def _new_folder(target: Path, size: int) -> Iterator[Path]:
    """A temporary folder that is renamed to `target` on success and removed on failure."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise GroundupError(f"{target} already exists. Choose another folder, or remove it")
    temporary = temp_path(target)
    try:
        with explain_disk_errors("the model", target.parent, size):
            temporary.mkdir(parents=True)
            yield temporary
            publish_dir(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_shards(folder: Path, tensors: Tensors, max_bytes: int) -> None:
    """Writes one safetensors file, or several of at most `max_bytes` (or one tensor) and their index."""
    shards: list[Tensors] = [{}]
    free_bytes = max_bytes
    for name, tensor in tensors.items():
        if _nbytes(tensor) > free_bytes and shards[-1]:
            shards.append({})
            free_bytes = max_bytes
        shards[-1][name] = tensor
        free_bytes -= _nbytes(tensor)
    stem, count = Path(WEIGHTS).stem, len(shards)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = WEIGHTS if count == 1 else f"{stem}-{number:05d}-of-{count:05d}.safetensors"
        # safetensors.save_file creates files with mode 0600.
        write_bytes(folder / file, save(shard, metadata={"format": "pt"}))
        weight_map |= dict.fromkeys(shard, file)
    if count > 1:
        size = sum(_nbytes(tensor) for tensor in tensors.values())
        write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": weight_map})


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        if (source / name).is_file():
            write_bytes(target / name, (source / name).read_bytes())


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        payload = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not isinstance(payload, dict):
        raise DataError(f"{path}: expected a JSON object at the top level")
    return payload
