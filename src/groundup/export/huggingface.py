"""Our checkpoints as folders that transformers, vLLM and llama.cpp read, and theirs as ours.

in:  a checkpoint folder of ours, or a published one (config.json and safetensors, in one file or several)
out: the other of the two; a folder that appears whole or not at all

Only safetensors are read: a pickle can run any program. What our decoder would compute differently is refused.
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
from groundup.export.vocabulary import tokenizer_from_hf, with_vocabulary
from groundup.model.architectures import Tensors
from groundup.model.checkpoint import CONFIG, INDEX, WEIGHTS, load_decoder, save_model
from groundup.model.hf_config import config_to_hf, tensors_to_hf

Dtype = Literal["fp32", "bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

GENERATION = "generation_config.json"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)
"""Files by which transformers turns text into ids."""
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
SHARD_BYTES = 5_000_000_000
"""Largest file of weights, as transformers has it."""


def export_huggingface(
    folder: Path, target: Path, dtype: Dtype = "fp32", max_shard_bytes: int = SHARD_BYTES
) -> None:
    """Write the checkpoint in `folder` to the new folder `target`, in the form that transformers reads.

    Raises GroundupError for a reward model, for switches that no published format carries, or where `target`
    is taken.
    """
    said = _read_json(folder / CONFIG)
    if "ScalarModel" in said.get("architectures", []):
        raise GroundupError(
            f"{folder} is a reward model or critic: it gives a number instead of tokens, for which there is no "
            "published form. Export the policy that was trained with it"
        )
    model = load_decoder(folder)
    switches = model.config.unportable()
    if switches:
        raise GroundupError(
            f"{folder} can't be exported: it was trained with {', '.join(switches)}, which no other program "
            "computes. Train with these off (keys of the same names in pretrain.architecture), or use it with "
            "`groundup chat`"
        )
    tensors = tensors_to_hf(model.config, model.state_dict())
    tensors = {name: tensor.to(DTYPES[dtype]).contiguous() for name, tensor in tensors.items()}
    ids = {key: said[key] for key in SPECIAL_IDS if said.get(key) is not None}
    config = config_to_hf(model.config) | ids | {"dtype": str(DTYPES[dtype]).removeprefix("torch.")}
    with _new_folder(target, sum(_bytes(tensor) for tensor in tensors.values())) as part:
        _write_shards(part, tensors, max_shard_bytes)
        write_json(part / CONFIG, config)
        write_json(part / GENERATION, ids)
        _copy(folder, part, (*TOKENIZER, GENERATION))


def import_huggingface(folder: Path, target: Path, control_tokens: bool = False) -> None:
    """Write the published model in `folder` to the new folder `target`, as a checkpoint of ours with fp32 weights.

    Tokenizer and special ids come along. control_tokens: put our control tokens on top of its vocabulary, so that our
    stages can train and talk to it (see `vocabulary.py`).
    Raises DataError for weights that are missing, left over or pickled, for a config.json with something that
    isn't computed here, and for a vocabulary on which our control tokens find no place.
    """
    said = _read_json(folder / CONFIG)
    if not (folder / WEIGHTS).exists() and not (folder / INDEX).exists():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        also = f" {pickled[0]} is a pickle, which could run any program and isn't read." if pickled else ""
        raise DataError(
            f"{folder} has no {WEIGHTS}.{also} Load it with transformers and save it with save_pretrained, "
            "which writes safetensors"
        )
    model, tokenizer = load_decoder(folder), None
    ids = {key: said[key] for key in SPECIAL_IDS if key in said}
    if control_tokens:
        tokenizer = tokenizer_from_hf(folder / TOKENIZER[0])
        model = with_vocabulary(model, tokenizer, _document_mark(ids))
    size = sum(_bytes(tensor) for tensor in model.state_dict().values())
    with _new_folder(target, size) as part:
        save_model(part, model, tokenizer)
        if tokenizer is None:
            write_json(part / CONFIG, _read_json(part / CONFIG) | ids)
            _copy(folder, part, (*TOKENIZER, GENERATION))


def _document_mark(ids: dict[str, Any]) -> int | None:
    """The id between documents; of several ends the first."""
    found = ids.get("eos_token_id")
    return found[0] if isinstance(found, list) else found


@contextmanager
def _new_folder(target: Path, size: int) -> Iterator[Path]:
    """Where to write what shall become `target`; it appears when all is written. Nothing is left of a failure."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise GroundupError(f"{target} exists already. Choose another folder, or remove it")
    part = temp_path(target)
    try:
        with explain_disk_errors("the model", target.parent, size):
            part.mkdir(parents=True)
            yield part
            publish_dir(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_shards(folder: Path, tensors: Tensors, max_bytes: int) -> None:
    """One file, or several of at most `max_bytes` (or one tensor) and the index that says what is where."""
    shards: list[Tensors] = [{}]
    room = max_bytes
    for name, tensor in tensors.items():
        if _bytes(tensor) > room and shards[-1]:
            shards.append({})
            room = max_bytes
        shards[-1][name] = tensor
        room -= _bytes(tensor)
    stem, count = Path(WEIGHTS).stem, len(shards)
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = WEIGHTS if count == 1 else f"{stem}-{number:05d}-of-{count:05d}.safetensors"
        # One write through our durable path: safetensors' own file writer leaves mode 0600.
        write_bytes(folder / file, save(shard, metadata={"format": "pt"}))
        places |= dict.fromkeys(shard, file)
    if count > 1:
        size = sum(_bytes(tensor) for tensor in tensors.values())
        write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": places})


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        if (source / name).is_file():
            write_bytes(target / name, (source / name).read_bytes())


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}") from None
    if not isinstance(said, dict):
        raise DataError(f"{path} holds no table")
    return said
