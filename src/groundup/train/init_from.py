"""Pretraining that starts from a checkpoint instead of random initialisation.

in:  a checkpoint folder (of a run, or what `groundup import` wrote), the tokenizer of the rows to learn from
out: its decoder; a digest of its content, which enters the fingerprint of the result

The schedule wsd leaves one more checkpoint, `stable/`, from before the rate falls, with the optimizer states
and how many rows were read. Annealed from there (`schedule = "linear"`, no warm-up), over as many tokens as one likes
and on other text if one likes, it is as if the first run had been planned for that horizon (Hu et al. 2024,
https://arxiv.org/abs/2404.06395).
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from groundup.core.atomic_io import publish_dir
from groundup.core.digests import UNCACHED, DigestCache
from groundup.core.errors import DataError
from groundup.core.registry import plugin_name, to_table
from groundup.core.stage import StageContext
from groundup.model.checkpoint import (
    CONFIG,
    check_same_tensors,
    read_config,
    read_tensors,
    save_decoder,
    write_tensors,
)
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.hf_config import tensors_from_hf
from groundup.parallel.context import SINGLE, ParallelContext
from groundup.parallel.engine import TrainEngine
from groundup.parallel.sharded_checkpoint import consolidate
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.optimizers import Optimizer

TOKENIZER = "tokenizer.json"
STABLE = "stable"
"""Folder of the checkpoint that the schedule wsd saves before the learning rate falls."""
OPTIMIZER = "optimizer.safetensors"


def start_digest(folder: Path, digests: DigestCache = UNCACHED) -> dict[str, str]:
    """SHA-256 of config.json, weights and tokenizer. Raises DataError where there is no checkpoint."""
    names = [CONFIG, TOKENIZER, *(path.name for path in folder.glob("*.safetensors*"))]
    checksums = {name: digests.sha256(folder / name) for name in sorted(names) if (folder / name).is_file()}
    if CONFIG not in checksums:
        raise DataError(
            f"pretrain.start: {folder} has no {CONFIG}. Name a checkpoint's folder, or leave it empty to start "
            "from random initialisation. `groundup import` makes one of a published model"
        )
    return checksums


def start_config(folder: Path, seq_len: int) -> DecoderConfig:
    """The checkpoint's decoder, for rows of this length. Raises DataError where it has learned fewer positions."""
    config = read_config(folder)
    if config.positions == "learned" and seq_len > config.max_seq_len:
        raise DataError(
            f"pretrain.start: {folder} has learned {config.max_seq_len} positions, and rows have {seq_len}. "
            f"Set tokenize.seq_len = {config.max_seq_len}"
        )
    return replace(config, max_seq_len=max(config.max_seq_len, seq_len))


def start_weights(folder: Path, config: DecoderConfig, tokenizer: Path) -> dict[str, Tensor]:
    """All weights of the checkpoint under our names, read as they are used.

    Raises DataError where rows of `tokenizer` (a folder) mean other ids, or weights are not those of `config`.
    """
    _check_tokenizer(folder, config, tokenizer)
    with torch.device("meta"):
        expected = Decoder(config).state_dict()
    try:
        tensors = tensors_from_hf(config, read_tensors(folder))
        check_same_tensors(expected, tensors)
    except (ValueError, KeyError) as error:
        raise DataError(
            f"pretrain.start: {folder} does not hold the weights of its {CONFIG}: {error}"
        ) from None
    return tensors


def save_checkpoint(
    folder: Path,
    engine: TrainEngine,
    config: DecoderConfig,
    tokenizer: Tokenizer,
    parallel: ParallelContext = SINGLE,
    chat: bool = False,
) -> None:
    """Write a checkpoint of the current weights; see `save_decoder`. With several ranks, all must call this."""
    with _gathered(folder, engine.snapshot().tensors, parallel) as tensors:
        if parallel.is_rank0:
            save_decoder(folder, config, _with_prefix("model.", tensors), tokenizer, chat)


def save_stable(
    context: StageContext,
    engine: TrainEngine,
    config: DecoderConfig,
    tokenizer: Tokenizer,
    optimizer: Optimizer,
    rows_read: int,
    parallel: ParallelContext = SINGLE,
) -> None:
    """Write the checkpoint to anneal from. optimizer: its recipe. With several ranks, all must call this."""
    state = engine.snapshot()
    numbers = parallel.gather_dicts(state.numbers)
    folder = context.temporary / STABLE
    if parallel.is_rank0:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    with _gathered(context.temporary, state.tensors, parallel) as tensors:
        if not parallel.is_rank0:
            return
        save_decoder(folder, config, _with_prefix("model.", tensors), tokenizer)
        metadata = {
            "optimizer": to_table(optimizer),
            "version": optimizer.version,
            "numbers": numbers,
            "rows_read": rows_read,
        }
        optimizer_tensors = {
            name: tensor for name, tensor in tensors.items() if name.startswith("optimizer.")
        }
        write_tensors(folder / OPTIMIZER, optimizer_tensors, {"groundup": json.dumps(metadata)})
    publish_dir(folder, context.path / STABLE)


@contextmanager
def _gathered(
    folder: Path, tensors: dict[str, Tensor], parallel: ParallelContext
) -> Iterator[dict[str, Tensor]]:
    """All tensors whole, on rank 0, from temporary files in `folder`, which are deleted at the end."""
    if parallel.mesh is None:
        yield tensors
        return
    gathered = folder / "gathered"
    if parallel.is_rank0:
        shutil.rmtree(gathered, ignore_errors=True)
    parallel.any(True)  # no rank writes before it is deleted
    yield consolidate(tensors, gathered, parallel)
    if parallel.is_rank0:
        shutil.rmtree(gathered)


def _with_prefix(begin: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(begin): tensor for name, tensor in tensors.items() if name.startswith(begin)}


def start_optimizer(folder: Path, optimizer: Optimizer) -> Optimizer:
    """`optimizer`, with the settings that the recipe does not name taken from the checkpoint, if it has them."""
    metadata = _optimizer_metadata(folder)
    if metadata is None or not _same_optimizer(metadata, optimizer):
        return optimizer
    known = {
        key: value for key, value in metadata["optimizer"].items() if key in type(optimizer).model_fields
    }
    return optimizer.model_copy(
        update={key: known[key] for key in known if key not in optimizer.model_fields_set}
    )


def resume_optimizer(
    folder: Path, engine: TrainEngine, optimizer: Optimizer, info: Callable[[str], None]
) -> int:
    """Load the optimizer state of the checkpoint, if it has one; returns the number of rows read before it."""
    metadata = _optimizer_metadata(folder)
    if metadata is None:
        return 0
    if _same_optimizer(metadata, optimizer):
        engine.load(folder, metadata["numbers"], weights=False)
    else:
        info(
            f"{folder / OPTIMIZER} was written by {metadata['optimizer']['use']}: "
            f"{plugin_name(optimizer)} starts without state"
        )
    return int(metadata["rows_read"])


def _optimizer_metadata(folder: Path) -> dict[str, Any] | None:
    path = folder / OPTIMIZER
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, Any] = json.loads(file.metadata()["groundup"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a readable optimizer state: {error!r}") from None
    return metadata


def _same_optimizer(metadata: dict[str, Any], optimizer: Optimizer) -> bool:
    return bool(
        metadata["optimizer"]["use"] == plugin_name(optimizer) and metadata["version"] == optimizer.version
    )


def _check_tokenizer(folder: Path, config: DecoderConfig, tokenizer: Path) -> None:
    table, loaded = _read(tokenizer / TOKENIZER), Tokenizer.load(tokenizer)
    count = loaded.vocab_size
    # Published models have more embeddings than tokens, for products of a round size.
    if count > config.vocab_size or (count != config.vocab_size and loaded.imported is None):
        raise DataError(
            f"pretrain.start: {folder} has a vocabulary of {config.vocab_size} ids, and the rows are of one of "
            f'{count}. Set tokenizer.start = "{folder}" where it has a {TOKENIZER}'
        )
    if (folder / TOKENIZER).is_file() and _read(folder / TOKENIZER) != table:
        raise DataError(
            f"pretrain.start: {folder / TOKENIZER} is another tokenizer than that of the rows, so its ids mean "
            f'other texts. Set tokenizer.start = "{folder}"'
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable tokenizer: {error!r}") from None
    return table
