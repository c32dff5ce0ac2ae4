"""The checkpoint that is exported: its decoder, its special ids and whether it has a chat template.

in:  a checkpoint folder, of a run or imported
out: ExportSource; GroundupError for a model that other runtimes cannot compute
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from groundup.core.errors import GroundupError
from groundup.export.files import read_json
from groundup.model.checkpoint import CONFIG, VALUE_MODEL, load_decoder
from groundup.model.decoder import Decoder

GENERATION_CONFIG = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
TOKENIZER_FILES = (
    TOKENIZER,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    CHAT_TEMPLATE,
    "vocab.json",
    "merges.txt",
)
"""Tokenizer files of transformers."""
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class ExportSource:
    """A checkpoint with its decoder."""

    folder: Path
    model: Decoder
    config_json: dict[str, Any]

    @cached_property
    def special_ids(self) -> dict[str, Any]:
        """The special ids that config.json names."""
        return {key: self.config_json[key] for key in SPECIAL_IDS if self.config_json.get(key) is not None}

    @cached_property
    def tokenizer_config(self) -> dict[str, Any]:
        """tokenizer_config.json; empty if there is none."""
        path = self.folder / TOKENIZER_CONFIG
        return read_json(path) if path.is_file() else {}

    @cached_property
    def chat_template(self) -> str | None:
        """The chat template; None for a model that was not trained on conversations."""
        path = self.folder / CHAT_TEMPLATE
        if path.is_file():
            return path.read_text(encoding="utf-8")
        template = self.tokenizer_config.get("chat_template")
        return template if isinstance(template, str) else None

    @cached_property
    def stop_ids(self) -> list[int]:
        """The ids that end a generation, the eos token first."""
        path = self.folder / GENERATION_CONFIG
        ids = (read_json(path) if path.is_file() else {}).get("eos_token_id")
        ids = self.special_ids.get("eos_token_id") if ids is None else ids
        return ids if isinstance(ids, list) else [] if ids is None else [ids]


Check = Callable[[ExportSource, Path], None]
"""(source, exported folder or file) -> None; raises to prevent its publication."""


def load_source(folder: Path) -> ExportSource:
    """Loads a checkpoint. Raises GroundupError for a reward model and for switches that are not portable."""
    config_json = read_json(folder / CONFIG)
    if VALUE_MODEL in config_json.get("architectures", []):
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
    return ExportSource(folder, model, config_json)
