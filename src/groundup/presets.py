"""Presets: functions that return a complete blueprint as a table, validated like a user's file.

in:  the preset's name, and perhaps the user's own files
out: a table as TOML would give it
"""

import difflib
import re
from itertools import islice
from pathlib import Path
from typing import Any

from groundup.core.blueprint import read_toml
from groundup.core.errors import BlueprintError

Table = dict[str, Any]


def stdlib() -> Table:
    """The model of your own Python: about fifteen minutes on two CPU cores, no network."""
    return {
        "name": "stdlib",
        "ingest": {"sources": [{"use": "stdlib"}]},
        "curate": {
            "steps": [{"use": name} for name in ("repair", "language", "length", "gopher_repetition")]
        },
        "tokenizer": {"vocab_size": 4096},
        "tokenize": {"seq_len": 512},
        "pretrain": {
            "depth": 4,
            "architecture": {"use": "qwen3", "d_model": 256, "n_heads": 4, "tie_embeddings": True},
            "init": "induction",
            "optimizer": {"use": "muon"},
            "tokens": 4_000_000,
            "batch_tokens": 4096,
        },
        "tasks": [{"use": "docstrings"}, {"use": "passages"}],
        "align": [
            {"name": "finetune", "use": "sft"},
            {"name": "reward", "use": "reward"},
            {"name": "align", "use": "ppo"},
        ],
    }


def crawl() -> Table:
    """A base model of web pages or web archives, filtered with FineWeb's rules."""
    return {
        "name": "crawl",
        "ingest": {"sources": [{"use": "files", "paths": ["crawl"]}]},
        "curate": {
            "steps": [
                {"use": "repair"},
                {"use": "language", "keep": ["en"]},
                {"use": "gopher_repetition"},
                {"use": "gopher_quality"},
                {"use": "c4", "end_marks": []},  # as in FineWeb: lines without an end mark are kept
                {"use": "fineweb"},
                {"use": "privacy"},
            ]
        },
        "tokenizer": {"vocab_size": 16_384},
        "tokenize": {"seq_len": 1024},
        "pretrain": {"depth": 8},
    }


def llama_8b() -> Table:
    """The shape of Llama 3 8B (https://arxiv.org/abs/2407.21783, table 3), for one machine of 8 H100 of 80 GB.

    A step is 64 rows of 8,192 tokens, 8 for each rank at once: a second micro-batch would have to keep gradients whole.
    """
    return _llama(32, 4096, 32, 14_336, 3e-4) | {
        "name": "llama-8b",
        "runtime": {"ranks": 8, "micro_batch": 8, "activation_checkpointing": "full"},
    }


def llama_70b() -> Table:
    """The shape of Llama 3 70B (https://arxiv.org/abs/2407.21783, table 3), for 32 machines of 8 H100 of 80 GB.

    The 8 GPUs of a machine share every matrix, so 32 groups read rows of their own: of a step's 512 rows of 8,192
    tokens, 16 each at once. Ranks are started by torchrun or Slurm, 8 per machine.
    """
    return _llama(80, 8192, 64, 28_672, 1.5e-4) | {
        "name": "llama-70b",
        "runtime": {"micro_batch": 16, "activation_checkpointing": "full", "layout": {"tensor": 8}},
    }


def _llama(depth: int, d_model: int, n_heads: int, d_ff: int, rate: float) -> Table:
    """A Llama 3 from scratch on the user's web pages: its shape and peak learning rate."""
    shape = {"d_model": d_model, "n_heads": n_heads, "n_kv_heads": 8, "d_ff": d_ff, "rope_theta": 500_000.0}
    return crawl() | {
        "tokenizer": {"vocab_size": 128_256},
        "tokenize": {"seq_len": 8192},
        "pretrain": {
            "depth": depth,
            "architecture": {"use": "llama", **shape},
            "optimizer": {"use": "adamw", "lr": rate},
        },
    }


PRESETS = {"stdlib": stdlib, "crawl": crawl, "llama-8b": llama_8b, "llama-70b": llama_70b}


def table(name: str) -> Table:
    """The preset `name`. Raises BlueprintError naming the nearest known one."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"Did you mean `{near[0]}`? " if near else ""
        raise BlueprintError(f"there is no preset `{name}`. {hint}Known: {', '.join(PRESETS)}")
    return PRESETS[name]()


def blueprint_table(
    blueprint: Path | None, data: list[str], name: str | None, preset: str = "stdlib"
) -> tuple[Table, str]:
    """(blueprint as a table, its origin for messages) of a command's options, before overrides and validation."""
    if blueprint is None:
        chosen, origin = table(preset), f"preset {preset}"
    else:
        chosen, origin = read_toml(blueprint), str(blueprint)
        chosen.setdefault("name", blueprint.stem)
    if data:
        use_data(chosen, data, rename=blueprint is None)
    if name is not None:
        chosen["name"] = name
    return chosen, origin


def use_data(blueprint: Table, paths: list[str], rename: bool) -> None:
    """Replace the sources with the user's files; with `rename`, a preset's: name the run after them, standard init."""
    missing = [path for path in paths if not _may_match(path)]
    if missing:
        raise BlueprintError(f"--data {missing[0]}: there is no such file or folder")
    blueprint.setdefault("ingest", {})["sources"] = [{"use": "files", "paths": paths}]
    curate = blueprint.setdefault("curate", {})
    if _has_messages(paths) and {"use": "privacy"} not in curate.get("steps", []):
        curate["steps"] = [*curate.get("steps", map(dict, _DEFAULT_STEPS)), {"use": "privacy"}]
    if rename:
        # Measured on source code; on novels it costs loss (docs/concepts/induction.md).
        blueprint.get("pretrain", {}).pop("init", None)
        name = Path(paths[0]).resolve().name.split(".")[0]
        clean = "".join(char if (char.isascii() and char.isalnum()) or char in "-_" else "-" for char in name)
        blueprint["name"] = clean.strip("-_") or "own"


_DEFAULT_STEPS = ({"use": "repair"}, {"use": "language"}, {"use": "length"}, {"use": "gopher_repetition"})
"""Curate's own, for a blueprint that names none."""
_MESSAGES = re.compile(
    r"\.(?:eml|mbox|mbx)(?:\.\w+)?$|(?:^|[^a-z])(?:chats?|whatsapp|slack|irc|telegram)(?:[^a-z]|$)", re.I
)
"""Names of files of mail and of chat logs."""
_SEARCHED = 10_000


def _has_messages(paths: list[str]) -> bool:
    """Whether the files, or the first of them below a folder, are mail or chat logs by their names."""
    files = (file for path in paths for file in (Path(path), *Path(path).expanduser().rglob("*")))
    return any(_MESSAGES.search(file.name) and file.is_file() for file in islice(files, _SEARCHED))


def _may_match(path: str) -> bool:
    return any(char in path for char in "*?[") or Path(path).expanduser().exists()
