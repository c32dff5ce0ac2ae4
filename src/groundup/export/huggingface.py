"""Export to Hugging Face model folders, as transformers and vLLM read them.

in:  a checkpoint folder
out: config.json, safetensors (sharded or not), generation_config.json and tokenizer files, published atomically
"""

import json
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor

from groundup.core.atomic_io import write_bytes, write_json, write_text
from groundup.export.files import copy_files, new_folder, read_json
from groundup.export.source import (
    GENERATION_CONFIG,
    TOKENIZER,
    TOKENIZER_FILES,
    Check,
    ExportSource,
    load_source,
)
from groundup.model.architectures import Tensors
from groundup.model.checkpoint import CONFIG, INDEX, WEIGHTS
from groundup.model.hf_config import config_to_hf, tensors_to_hf
from groundup.tokens.tokenizer import is_own_table

Dtype = Literal["fp32", "fp16", "bf16"]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SHARD_BYTES = 5_000_000_000
"""Maximum size of a weights file."""


def export_huggingface(
    folder: Path,
    target: Path,
    dtype: Dtype = "fp32",
    max_shard_bytes: int = SHARD_BYTES,
    verify: Check | None = None,
) -> None:
    """Export the checkpoint in `folder` to the new folder `target`.

    Raises GroundupError for a reward model, for switches that are not portable, and if `target` exists.
    """
    source = load_source(folder)
    config = source.model.config
    tensors = tensors_to_hf(config, source.model.state_dict())
    tensors = {name: tensor.to(DTYPES[dtype]).contiguous() for name, tensor in tensors.items()}
    torch_dtype = str(DTYPES[dtype]).removeprefix("torch.")
    with new_folder(target, sum(_nbytes(tensor) for tensor in tensors.values())) as temporary:
        _write_shards(temporary, tensors, max_shard_bytes)
        write_json(temporary / CONFIG, config_to_hf(config) | source.special_ids | {"dtype": torch_dtype})
        write_json(temporary / GENERATION_CONFIG, source.special_ids)
        copy_files(folder, temporary, (*TOKENIZER_FILES, GENERATION_CONFIG))
        _leave_bos_to_template(source, temporary / TOKENIZER)
        if verify is not None:
            verify(source, temporary)


def _leave_bos_to_template(source: ExportSource, path: Path) -> None:
    """Removes the post-processor that adds BOS where the chat template already does: one BOS either way."""
    if source.chat_template is None or not path.is_file():
        return
    table = read_json(path)
    if is_own_table(table):
        write_text(path, json.dumps(table | {"post_processor": None}, ensure_ascii=False))


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


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
