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
from groundup.tokens.tokenizer import Tokenizer, is_own_table


def import_huggingface(folder: Path, target: Path, control_tokens: bool = False) -> None:
    """Import the model in `folder` to the new folder `target`, as a checkpoint with fp32 weights.

    Tokenizer files and special ids are copied. control_tokens: append the control tokens of this package to the
    vocabulary, which training and chat need (see `vocabulary.py`).
    Raises DataError for weights that are missing, unexpected or pickled, for an unsupported config.json, and for a
    vocabulary that cannot take the control tokens.
    """
    config_json = read_json(folder / CONFIG)
    if not (folder / WEIGHTS).exists() and not (folder / INDEX).exists():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        note = f" {pickled[0]} is a pickle, which can execute code and is not read." if pickled else ""
        raise DataError(
            f"{folder} has no {WEIGHTS}.{note} Load the model with transformers and save it with "
            "save_pretrained, which writes safetensors"
        )
    model, tokenizer = load_decoder(folder), None
    ids = {key: config_json[key] for key in SPECIAL_IDS if key in config_json}
    own_table = _own_table(folder / TOKENIZER)
    if own_table is not None:
        tokenizer = Tokenizer.from_merges(own_table)
    elif control_tokens:
        tokenizer = tokenizer_from_hf(folder / TOKENIZER)
        model = resize_vocabulary(model, tokenizer, _eos_id(ids))
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    with new_folder(target, size) as temporary:
        save_model(
            temporary, model, tokenizer, chat=tokenizer is not None and _eos_id(ids) == tokenizer.end_of_turn
        )
        if tokenizer is None:
            write_json(temporary / CONFIG, read_json(temporary / CONFIG) | ids)
            copy_files(folder, temporary, (*TOKENIZER_FILES, GENERATION_CONFIG))


def _own_table(path: Path) -> dict[str, Any] | None:
    """The tokenizer.json that this package exported; None for another one."""
    table = read_json(path) if path.is_file() else {}
    return table if is_own_table(table) else None


def _eos_id(ids: dict[str, Any]) -> int | None:
    """The eos_token_id; the first if there are several."""
    eos = ids.get("eos_token_id")
    return eos[0] if isinstance(eos, list) else eos
