"""Control tokens of this package on top of an imported byte-level vocabulary, whose ids are kept.

in:  a tokenizer.json and its decoder
out: a Tokenizer, and the decoder with an embedding for each of its ids

The imported control tokens and unused embeddings after the vocabulary are dropped.
"""

import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from groundup.core.errors import DataError
from groundup.model.decoder import Decoder
from groundup.tokens.bpe import byte_table
from groundup.tokens.tokenizer import Tokenizer

COMMON_BYTES = frozenset((0x0A, *range(0x20, 0x7F)))
"""Bytes without which a vocabulary is not one of bytes: a newline and printable ASCII."""


def tokenizer_from_hf(path: Path) -> tuple[Tokenizer, int]:
    """The vocabulary of a tokenizer.json with control tokens appended, and its size before that.

    Rare bytes that the vocabulary lacks, as in SmolLM2, are appended as tokens too.
    Raises DataError for anything but a byte-level BPE with contiguous ids.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        model_type, vocabulary = table["model"]["type"], table["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a readable tokenizer: {error!r}") from None
    characters = byte_table()
    missing = [char for char in characters if char not in vocabulary]
    if model_type != "BPE" or any(characters[char] in COMMON_BYTES for char in missing):
        raise DataError(f"{path} is not a byte-level BPE, which control tokens need")
    foreign = [token for token in vocabulary if any(char not in characters for char in token)]
    if foreign or sorted(vocabulary.values()) != list(range(len(vocabulary))):
        problem = (
            f"contains {foreign[0]!r}, which encodes no bytes" if foreign else "has gaps between its ids"
        )
        raise DataError(f"{path} {problem}: control tokens cannot be appended")
    size = len(vocabulary)
    bytes_added = {char: size + number for number, char in enumerate(missing)}
    model = table["model"] | {"vocab": vocabulary | bytes_added}
    return Tokenizer.from_merges({**table, "model": model, "truncation": None, "padding": None}), size


def resize_vocabulary(model: Decoder, tokenizer: Tokenizer, size: int, eos_id: int | None) -> Decoder:
    """The decoder with its embeddings resized to the tokenizer's ids.

    size: number of imported tokens, whose embeddings are kept. bos and eos get the embedding of the imported eos;
    all other new tokens get the mean of all embeddings
    (https://nlp.stanford.edu/~johnhew/vocab-expansion.html).
    """
    rows = model.config.vocab_size
    if size > rows:
        raise DataError(
            f"tokenizer.json has {size} ids and the model has {rows} embeddings: they do not belong together"
        )

    def resize(matrix: Tensor) -> Tensor:
        resized_matrix = matrix[:size].mean(dim=0).expand(tokenizer.vocab_size, -1).clone()
        resized_matrix[:size] = matrix[:size]
        if eos_id is not None and eos_id < rows:
            resized_matrix[[tokenizer.bos, tokenizer.eos]] = matrix[eos_id]
        return resized_matrix

    resized = Decoder(replace(model.config, vocab_size=tokenizer.vocab_size))
    vocabulary_tensors = ("model.embed_tokens.weight", "lm_head.weight")
    with torch.no_grad():
        state = {
            name: resize(value) if name in vocabulary_tensors else value
            for name, value in model.state_dict().items()
        }
        resized.load_state_dict(state)
    return resized
