"""Pretraining that goes on from a checkpoint instead of noise.

in:  a checkpoint folder (of a run, or what `groundup import` wrote), the tokenizer of the rows to learn from
out: its decoder; a digest of its content, by which the result's identity knows what it came from

The schedule wsd leaves one more checkpoint, `stable/`, from before the rate falls, with what the optimizer has learnt
and how many rows were read. Annealed from there (`schedule = "linear"`, no warm-up), over as many tokens as one likes
and on other text if one likes, it is as if the first run had been planned for that horizon (Hu et al. 2024,
https://arxiv.org/abs/2404.06395).
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from torch.distributed.tensor import DTensor

from groundup.core.durable import publish_folder, sha256_file, write_bytes
from groundup.core.errors import DataError
from groundup.core.slot import part_name, spell
from groundup.core.stage import Work
from groundup.model.checkpoint import CONFIG, load_strictly, read_config, read_tensors, save_model
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.published import own_tensors
from groundup.parallel.shard import as_share_of, share_of, whole, whole_weights
from groundup.parallel.world import ALONE, World
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.checkpoints import fill_optimizer, optimizer_state
from groundup.train.optimizers import Optimizer

TOKENIZER = "tokenizer.json"
STABLE = "stable"
"""Folder of wsd's checkpoint from before the rate falls."""
OPTIMIZER = "optimizer.safetensors"


def start_digest(folder: Path) -> dict[str, str]:
    """SHA-256 of config.json, weights and tokenizer. Raises DataError where there is no checkpoint."""
    names = [CONFIG, TOKENIZER, *(path.name for path in folder.glob("*.safetensors*"))]
    found = {name: sha256_file(folder / name) for name in sorted(names) if (folder / name).is_file()}
    if CONFIG not in found:
        raise DataError(
            f"pretrain.start: {folder} holds no {CONFIG}. Name a checkpoint's folder, or leave it empty to start "
            "from noise. `groundup import` makes one of a published model"
        )
    return found


def start_config(folder: Path, seq_len: int) -> DecoderConfig:
    """The checkpoint's decoder, for rows of this length. Raises DataError where it has learned fewer positions."""
    config = read_config(folder)
    if config.positions == "learned" and seq_len > config.max_seq_len:
        raise DataError(
            f"pretrain.start: {folder} has learned {config.max_seq_len} positions, and rows have {seq_len}. "
            f"Set tokenize.seq_len = {config.max_seq_len}"
        )
    return replace(config, max_seq_len=max(config.max_seq_len, seq_len))


def start_model(folder: Path, seq_len: int, tokenizer: Path) -> Decoder:
    """The checkpoint's decoder and weights. Raises DataError where rows of `tokenizer` (a folder) mean other ids."""
    config = start_config(folder, seq_len)
    _check_tokenizer(folder, config, tokenizer)
    model = Decoder(config)
    try:
        load_strictly(model, own_tensors(config, read_tensors(folder)))
    except (ValueError, KeyError) as error:
        raise DataError(
            f"pretrain.start: {folder} does not hold the weights of its {CONFIG}: {error}"
        ) from None
    return model


def save_stable(
    out: Work,
    model: Decoder,
    tokenizer: Tokenizer,
    optimizer: torch.optim.Optimizer,
    part: Optimizer,
    rows_read: int,
    world: World = ALONE,
) -> None:
    """Write the checkpoint to anneal from. part: what made `optimizer`. With several ranks, all must call this."""
    tensors, numbers = optimizer_state(model, optimizer)
    copies = {name: whole(tensor.detach()).cpu().contiguous() for name, tensor in tensors.items()}
    weights = whole_weights(model, world)
    if not world.leads:
        return
    folder = out.temporary / STABLE
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    save_model(folder, model, tokenizer, weights)
    said = json.dumps(
        {"optimizer": spell(part), "version": part.version, "numbers": numbers, "rows_read": rows_read}
    )
    write_bytes(folder / OPTIMIZER, save(copies, metadata={"groundup": said}))
    publish_folder(folder, out.path / STABLE)


def start_optimizer(folder: Path, part: Optimizer) -> Optimizer:
    """`part`, with what the recipe doesn't name as it was when the checkpoint was made, where it holds that."""
    said = _said(folder)
    if said is None or not _same(said, part):
        return part
    known = {key: value for key, value in said["optimizer"].items() if key in type(part).model_fields}
    return part.model_copy(update={key: known[key] for key in known if key not in part.model_fields_set})


def resume_optimizer(
    folder: Path,
    model: Decoder,
    optimizer: torch.optim.Optimizer,
    part: Optimizer,
    say: Callable[[str], None],
) -> int:
    """Fill `optimizer` from the checkpoint where it holds such a state; returns the rows that were read before it."""
    said = _said(folder)
    if said is None:
        return 0
    if _same(said, part):
        named, tensors = dict(model.named_parameters()), load_file(folder / OPTIMIZER)
        mine = {name: _share(named[name.rpartition(".")[0]], tensor) for name, tensor in tensors.items()}
        fill_optimizer(model, optimizer, mine, said["numbers"])
    else:
        say(f"{folder / OPTIMIZER} was written by {said['optimizer']['use']}: {part_name(part)} starts anew")
    return int(said["rows_read"])


def _share(parameter: Tensor, state: Tensor) -> Tensor:
    """This rank's share of what was learnt about each number of a parameter; anything else is whole on every rank."""
    if not isinstance(parameter, DTensor) or state.shape != parameter.shape:
        return state
    return as_share_of(parameter, share_of(state, parameter).contiguous())


def _said(folder: Path) -> dict[str, Any] | None:
    path = folder / OPTIMIZER
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            said: dict[str, Any] = json.loads(file.metadata()["groundup"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no optimizer state that can be read: {error!r}") from None
    return said


def _same(said: dict[str, Any], part: Optimizer) -> bool:
    return bool(said["optimizer"]["use"] == part_name(part) and said["version"] == part.version)


def _check_tokenizer(folder: Path, config: DecoderConfig, tokenizer: Path) -> None:
    ours = _read(tokenizer / TOKENIZER)
    count = len(ours["model"]["vocab"]) + len(ours["added_tokens"])
    if count != config.vocab_size:
        raise DataError(
            f"pretrain.start: {folder} has a vocabulary of {config.vocab_size} ids, and the rows are of one of "
            f'{count}. Set tokenizer.start = "{folder}" where it has a {TOKENIZER}'
        )
    if (folder / TOKENIZER).is_file() and _read(folder / TOKENIZER) != ours:
        raise DataError(
            f"pretrain.start: {folder / TOKENIZER} is another tokenizer than that of the rows, so its ids mean "
            f'other texts. Set tokenizer.start = "{folder}"'
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no tokenizer that can be read: {error!r}") from None
    return table
