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


def tokenizer_from_hf(path: Path) -> Tokenizer:
    """The vocabulary of a tokenizer.json with control tokens appended.

    Raises DataError for anything but a byte-level BPE with contiguous ids.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        model_type, vocabulary = table["model"]["type"], table["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a readable tokenizer: {error!r}") from None
    byte_chars = byte_table()
    if model_type != "BPE" or not all(char in vocabulary for char in byte_chars):
        raise DataError(f"{path} is not a byte-level BPE, which control tokens need")
    foreign = [token for token in vocabulary if any(char not in byte_chars for char in token)]
    if foreign or sorted(vocabulary.values()) != list(range(len(vocabulary))):
        problem = (
            f"contains {foreign[0]!r}, which encodes no bytes" if foreign else "has gaps between its ids"
        )
        raise DataError(f"{path} {problem}: control tokens cannot be appended")
    return Tokenizer.from_merges({**table, "truncation": None, "padding": None})


def resize_vocabulary(model: Decoder, tokenizer: Tokenizer, eos_id: int | None) -> Decoder:
    """The decoder with its embeddings resized to the tokenizer's ids.

    bos and eos get the embedding of the imported eos; the other control tokens get the mean of all embeddings
    (https://nlp.stanford.edu/~johnhew/vocab-expansion.html).
    """
    first = tokenizer.bos
    rows = model.config.vocab_size
    if first > rows:
        raise DataError(
            f"tokenizer.json has {first} ids and the model has {rows} embeddings: they do not belong together"
        )

    def resize(matrix: Tensor) -> Tensor:
        resized_matrix = matrix[:first].mean(dim=0).expand(tokenizer.vocab_size, -1).clone()
        resized_matrix[:first] = matrix[:first]
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
