"""Import of Hugging Face model folders.

in:  config.json and safetensors (sharded or not), tokenizer files
out: a checkpoint folder with fp32 weights, published atomically

Only safetensors are read: unpickling can execute arbitrary code. Unsupported keys of config.json are refused.
"""

from pathlib import Path
from typing import Any

from groundup.core.atomic_io import write_json
from groundup.core.errors import DataError
from groundup.export.files import copy_files, new_folder, read_json
from groundup.export.source import GENERATION_CONFIG, SPECIAL_IDS, TOKENIZER, TOKENIZER_FILES
from groundup.export.vocabulary import resize_vocabulary, tokenizer_from_hf
from groundup.model.checkpoint import CONFIG, INDEX, WEIGHTS, load_decoder, save_model
from groundup.model.decoder import Decoder
from groundup.model.lora import CONFIG as ADAPTER_CONFIG
from groundup.model.lora import load_adapters, merge
from groundup.tokens.tokenizer import Tokenizer, is_own_table


def import_huggingface(folder: Path, target: Path, control_tokens: bool = False) -> None:
    """Import the model in `folder` to the new folder `target`, as a checkpoint with fp32 weights.

    Tokenizer files, chat template and special ids are copied. control_tokens: append the control tokens of this
    package to the vocabulary, which training and chat need (see `vocabulary.py`). A LoRA adapter is merged into the
    model that it names.
    Raises DataError for weights that are missing, unexpected, pickled or not finite, for an unsupported config.json,
    and for a vocabulary that cannot take the control tokens.
    """
    adapters, model_folder = None, folder
    if (folder / ADAPTER_CONFIG).is_file() and not _has_weights(folder):
        adapters, model_folder = folder, _adapter_base(folder)
    config_json = read_json(model_folder / CONFIG)
    _require_safetensors(model_folder)
    model, tokenizer = load_decoder(model_folder), None
    if adapters is not None:
        load_adapters(adapters, model)
        merge(model)
    _require_finite(model, folder)
    ids = {key: config_json[key] for key in SPECIAL_IDS if key in config_json}
    own_table = _own_table(model_folder / TOKENIZER)
    if own_table is not None:
        tokenizer = Tokenizer.from_merges(own_table)
    elif control_tokens:
        tokenizer, size = tokenizer_from_hf(model_folder / TOKENIZER)
        model = resize_vocabulary(model, tokenizer, size, _eos_id(ids))
    with new_folder(target, sum(tensor.nbytes for tensor in model.state_dict().values())) as temporary:
        is_chat = tokenizer is not None and _eos_id(ids) == tokenizer.end_of_turn
        save_model(temporary, model, tokenizer, chat=is_chat)
        if tokenizer is None:
            write_json(temporary / CONFIG, read_json(temporary / CONFIG) | ids)
            copy_files(model_folder, temporary, (*TOKENIZER_FILES, GENERATION_CONFIG))


def _has_weights(folder: Path) -> bool:
    return (folder / WEIGHTS).exists() or (folder / INDEX).exists()


def _require_safetensors(folder: Path) -> None:
    if _has_weights(folder):
        return
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    note = f" {pickled[0]} is a pickle, which can execute code and is not read." if pickled else ""
    raise DataError(
        f"{folder} has no {WEIGHTS}.{note} Load the model with transformers and save it with save_pretrained, "
        "which writes safetensors"
    )


def _adapter_base(folder: Path) -> Path:
    """The folder of the model that a LoRA adapter belongs to. Raises DataError if it is not on this machine."""
    name = str(read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path") or "")
    for base in (Path(name), folder / name):
        if name and (base / CONFIG).is_file():
            return base
    raise DataError(
        f"{folder} is a LoRA adapter of `{name}`, which is not a folder here. Download that model and set "
        f"base_model_name_or_path in {folder / ADAPTER_CONFIG} to its folder: both are merged"
    )


def _require_finite(model: Decoder, folder: Path) -> None:
    """Raises DataError naming the first weights that contain nan or inf."""
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise DataError(
                f"{folder}: the weights {name} contain nan or inf. Download or train the model again"
            )


def _own_table(path: Path) -> dict[str, Any] | None:
    """The tokenizer.json that this package exported; None for another one."""
    table = read_json(path) if path.is_file() else {}
    return table if is_own_table(table) else None


def _eos_id(ids: dict[str, Any]) -> int | None:
    """The eos_token_id; the first if there are several."""
    eos = ids.get("eos_token_id")
    return eos[0] if isinstance(eos, list) else eos
