"""Sharded checkpoints: saves DTensors from all ranks and loads them onto any number of ranks.

in:  tensors by name, each rank with its share of them, and an empty folder
out: safetensors files, each rank's shares in its own; the same tensors filled again, shared in any way

`torch.distributed.checkpoint` plans who writes and reads what. Copies that several ranks hold are written once.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from groundup.parallel.context import ParallelContext

SINGLE_FILE = "state.safetensors"
"""File name of a checkpoint that a single rank wrote."""
SCALAR_SUFFIX = " (a number)"
"""Suffix of 0-dimensional tensors while they are consolidated."""


def save_sharded(tensors: Mapping[str, Tensor], folder: Path, parallel: ParallelContext) -> None:
    """Write this rank's shards of `tensors`; returns when all ranks have. May run in a background thread.

    Raises what went wrong on the first rank where something did.
    """
    _save(tensors, HuggingFaceStorageWriter(str(folder), save_distributed=True), parallel)


def _save(tensors: Mapping[str, Tensor], writer: HuggingFaceStorageWriter, parallel: ParallelContext) -> None:
    try:
        save(dict(tensors), storage_writer=writer, process_group=parallel.background_group)
    except CheckpointException as error:
        raise error.failures[min(error.failures)][0] from None


def consolidate(tensors: Mapping[str, Tensor], folder: Path, parallel: ParallelContext) -> dict[str, Tensor]:
    """All tensors, whole, on rank 0; an empty dict on the others.

    They lie in `folder`, an empty one that all ranks see, and are read as they are used: no rank holds them all.
    """
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True, enable_consolidation=True)
    # PyTorch joins a tensor's shards along its axes, and leaves one without axes zero. A name says which they are: the
    # rank that leads may have none of them.
    named = {
        name if tensor.dim() else f"{name}{SCALAR_SUFFIX}": tensor if tensor.dim() else tensor.reshape(1)
        for name, tensor in tensors.items()
    }
    _save(named, writer, parallel)
    tensors_on_disk: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")) if parallel.is_rank0 else ():
        for name, tensor in load_file(file).items():
            tensors_on_disk[name.removesuffix(SCALAR_SUFFIX)] = (
                tensor[0] if name.endswith(SCALAR_SUFFIX) else tensor
            )
    return tensors_on_disk


def load_sharded(
    folder: Path,
    named: Mapping[str, Tensor],
    optimizer_prefixes: Mapping[str, Tensor],
    parallel: ParallelContext,
) -> dict[str, Tensor]:
    """Load this rank's shards from `folder`: fills `named` in place, creates those of `optimizer_prefixes`.

    optimizer_prefixes: prefix of a name -> the parameter whose sharding such a tensor has, if it has its shape. Raises
    KeyError for a missing named tensor.
    """
    reader = HuggingFaceStorageReader(str(folder))
    stored = reader.read_metadata().state_dict_metadata
    tensors = {name: named[name] for name in named if name in stored or _missing(name, folder)}
    for name, metadata in stored.items():
        parameter = next(
            (parameter for begin, parameter in optimizer_prefixes.items() if name.startswith(begin)), None
        )
        if name not in named and parameter is not None and isinstance(metadata, TensorStorageMetadata):
            tensors[name] = _empty_like(metadata, parameter)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # it is: one rank reads them all
        load(tensors, storage_reader=reader, no_dist=parallel.mesh is None)
    return tensors


def _missing(name: str, folder: Path) -> bool:
    raise KeyError(f"{folder} holds no {name}")


def _empty_like(metadata: TensorStorageMetadata, parameter: Tensor) -> Tensor:
    if metadata.size == parameter.shape:
        return torch.zeros_like(parameter, dtype=metadata.properties.dtype, requires_grad=False)
    return torch.zeros(metadata.size, dtype=metadata.properties.dtype)
