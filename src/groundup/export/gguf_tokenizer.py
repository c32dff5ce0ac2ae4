"""Tokenizer metadata of a GGUF file.

in:  the tokenizer files of a checkpoint
out: tokens, token types, merges, the name of llama.cpp's pre-tokenizer, special ids, chat template

llama.cpp has its pre-tokenizers compiled in, by name. A tokenizer.json with another split is refused.
"""

from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer as HfTokenizer
from tokenizers.models import BPE

from groundup.core.errors import GroundupError
from groundup.export.files import read_json
from groundup.export.source import TOKENIZER, ExportSource
from groundup.tokens.bpe import LLAMA3_SPLIT

QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
PRE_TOKENIZERS = {
    (f"Split {LLAMA3_SPLIT}", "ByteLevel"): "llama-bpe",
    (f"Split {QWEN2_SPLIT}", "ByteLevel"): "qwen2",
    ("ByteLevel with regex",): "gpt-2",
    ("Digits", "ByteLevel with regex"): "smollm",
}
"""llama.cpp's name of each pre_tokenizer of tokenizer.json."""
WITHOUT_WHOLE_WORDS = {"llama-bpe": "dbrx"}
"""The same split without llama-bpe's rule that a word of the vocabulary is one token, whatever the merges say."""
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""llama.cpp's types of tokens."""


@dataclass(frozen=True)
class GgufTokenizer:
    """The tokenizer.ggml.* metadata. special_ids: by llama.cpp's names."""

    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    add_bos: bool
    special_ids: dict[str, int] = field(default_factory=dict)
    chat_template: str | None = None


def gguf_tokenizer(source: ExportSource) -> GgufTokenizer:
    """The tokenizer metadata of a checkpoint. Raises GroundupError if llama.cpp cannot tokenize like it."""
    path = source.folder / TOKENIZER
    if not path.is_file():
        raise GroundupError(
            f"{source.folder} has no {TOKENIZER}, which a GGUF file contains. Export it with --format huggingface"
        )
    table = read_json(path)
    tokens, types = _tokens(table, source.model.config.vocab_size)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in table["model"]["merges"]]
    return GgufTokenizer(
        pre=_pre_tokenizer(table, str(path)),
        tokens=tokens,
        types=types,
        merges=merges,
        add_bos=_adds_bos(source, table),
        special_ids=_special_ids(source),
        chat_template=source.chat_template,
    )


def _tokens(table: dict[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    """Text and type of every id; ids without a token are unused."""
    tokens = [f"[unused {number}]" for number in range(vocab_size)]
    types = [UNUSED] * vocab_size
    for token, number in table["model"]["vocab"].items():
        tokens[number], types[number] = token, NORMAL
    for item in table.get("added_tokens") or ():
        if item["id"] < vocab_size:
            tokens[item["id"]] = item["content"]
            types[item["id"]] = CONTROL if item["special"] else USER_DEFINED
    return tokens, types


def _pre_tokenizer(table: dict[str, Any], path: str) -> str:
    if table["model"]["type"] != "BPE" or table["model"].get("byte_fallback"):
        raise GroundupError(f"{path} is not a byte-level BPE, the only kind that is written to GGUF")
    if table.get("normalizer"):
        kind = table["normalizer"]["type"]
        raise GroundupError(f"{path} has the normalizer {kind}, which llama.cpp does not apply")
    pre = table.get("pre_tokenizer") or {}
    steps = tuple(_step(step) for step in pre.get("pretokenizers", [pre]))
    name = PRE_TOKENIZERS.get(steps)
    if name is None:
        raise GroundupError(
            f"{path} has the pre_tokenizer {', '.join(steps)}, which llama.cpp has no name for. Known are: "
            f"{', '.join(PRE_TOKENIZERS.values())}"
        )
    if not table["model"].get("ignore_merges") and not _words_are_reachable(table):
        return WITHOUT_WHOLE_WORDS.get(name, name)
    return name


def _step(step: dict[str, Any]) -> str:
    """One pre-tokenizer, by what distinguishes it."""
    kind = step.get("type", "none")
    if kind == "Split":
        return f"Split {step['pattern'].get('Regex')}"
    if kind == "ByteLevel" and step.get("add_prefix_space"):
        return "ByteLevel with add_prefix_space"
    if kind == "ByteLevel" and step.get("use_regex", True):
        return "ByteLevel with regex"
    return "Digits in groups" if kind == "Digits" and not step["individual_digits"] else str(kind)


def _words_are_reachable(table: dict[str, Any]) -> bool:
    """Whether the merges give one token for the text of each token."""
    merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in table["model"]["merges"]]
    bpe = HfTokenizer(BPE(vocab=table["model"]["vocab"], merges=merges))
    return all(len(bpe.model.tokenize(token)) == 1 for token in table["model"]["vocab"])


def _adds_bos(source: ExportSource, table: dict[str, Any]) -> bool:
    """Whether the tokenizer begins a text with BOS; with a chat template of this package it does not."""
    explicit = source.tokenizer_config.get("add_bos_token")
    if explicit is not None:
        return bool(explicit)
    ids = HfTokenizer.from_file(str(source.folder / TOKENIZER)).encode("a").ids
    return bool(ids) and ids[0] == source.special_ids.get("bos_token_id")


def _special_ids(source: ExportSource) -> dict[str, int]:
    """bos, eos, padding and eot, the end of a turn; generation stops at eos and eot."""
    stop_ids = source.stop_ids
    ids = {
        "bos": source.special_ids.get("bos_token_id"),
        "eos": stop_ids[0] if stop_ids else None,
        "eot": stop_ids[0 if source.chat_template is not None else -1] if stop_ids else None,
        "padding": source.special_ids.get("pad_token_id"),
    }
    return {name: number for name, number in ids.items() if number is not None}
