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
"""Folder of wsd's checkpoint from before the rate falls."""
OPTIMIZER = "optimizer.safetensors"


def start_digest(folder: Path, digests: DigestCache = UNCACHED) -> dict[str, str]:
    """SHA-256 of config.json, weights and tokenizer. Raises DataError where there is no checkpoint."""
    names = [CONFIG, TOKENIZER, *(path.name for path in folder.glob("*.safetensors*"))]
    found = {name: digests.sha256(folder / name) for name in sorted(names) if (folder / name).is_file()}
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


def start_weights(folder: Path, config: DecoderConfig, tokenizer: Path) -> dict[str, Tensor]:
    """All weights of the checkpoint under our names, read as they are used.

    Raises DataError where rows of `tokenizer` (a folder) mean other ids, or weights are not those of `config`.
    """
    _check_tokenizer(folder, config, tokenizer)
    with torch.device("meta"):
        wanted = Decoder(config).state_dict()
    try:
        tensors = tensors_from_hf(config, read_tensors(folder))
        check_same_tensors(wanted, tensors)
    except (ValueError, KeyError) as error:
        raise DataError(
            f"pretrain.start: {folder} does not hold the weights of its {CONFIG}: {error}"
        ) from None
    return tensors


def save_checkpoint(
    folder: Path,
    learner: TrainEngine,
    config: DecoderConfig,
    tokenizer: Tokenizer,
    world: ParallelContext = SINGLE,
    chat: bool = False,
) -> None:
    """Writes the checkpoint of the trained model; see `save_decoder`. With several ranks, all must call this."""
    with _gathered(folder, learner.snapshot().tensors, world) as tensors:
        if world.is_rank0:
            save_decoder(folder, config, _about("model.", tensors), tokenizer, chat)


def save_stable(
    out: StageContext,
    learner: TrainEngine,
    config: DecoderConfig,
    tokenizer: Tokenizer,
    part: Optimizer,
    rows_read: int,
    world: ParallelContext = SINGLE,
) -> None:
    """Write the checkpoint to anneal from. part: what made the optimizer. With several ranks, all must call this."""
    state = learner.snapshot()
    numbers = world.gather_dicts(state.numbers)
    folder = out.temporary / STABLE
    if world.is_rank0:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    with _gathered(out.temporary, state.tensors, world) as tensors:
        if not world.is_rank0:
            return
        save_decoder(folder, config, _about("model.", tensors), tokenizer)
        said = {
            "optimizer": to_table(part),
            "version": part.version,
            "numbers": numbers,
            "rows_read": rows_read,
        }
        learnt = {name: tensor for name, tensor in tensors.items() if name.startswith("optimizer.")}
        write_tensors(folder / OPTIMIZER, learnt, {"groundup": json.dumps(said)})
    publish_dir(folder, out.path / STABLE)


@contextmanager
def _gathered(
    folder: Path, tensors: dict[str, Tensor], world: ParallelContext
) -> Iterator[dict[str, Tensor]]:
    """All tensors whole, on the rank that leads, from files beside what is being made; these go in the end."""
    if world.mesh is None:
        yield tensors
        return
    aside = folder / "gathered"
    if world.is_rank0:
        shutil.rmtree(aside, ignore_errors=True)
    world.any(True)  # nobody writes before it is gone
    yield consolidate(tensors, aside, world)
    if world.is_rank0:
        shutil.rmtree(aside)


def _about(begin: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(begin): tensor for name, tensor in tensors.items() if name.startswith(begin)}


def start_optimizer(folder: Path, part: Optimizer) -> Optimizer:
    """`part`, with what the recipe doesn't name as it was when the checkpoint was made, where it holds that."""
    said = _said(folder)
    if said is None or not _same(said, part):
        return part
    known = {key: value for key, value in said["optimizer"].items() if key in type(part).model_fields}
    return part.model_copy(update={key: known[key] for key in known if key not in part.model_fields_set})


def resume_optimizer(folder: Path, learner: TrainEngine, part: Optimizer, say: Callable[[str], None]) -> int:
    """Fill the learner's optimizer from the checkpoint where it holds such a state; returns the rows read before it."""
    said = _said(folder)
    if said is None:
        return 0
    if _same(said, part):
        learner.load(folder, said["numbers"], weights=False)
    else:
        say(
            f"{folder / OPTIMIZER} was written by {said['optimizer']['use']}: {plugin_name(part)} starts anew"
        )
    return int(said["rows_read"])


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
    return bool(said["optimizer"]["use"] == plugin_name(part) and said["version"] == part.version)


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
