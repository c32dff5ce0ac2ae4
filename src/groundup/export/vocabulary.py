"""A published byte-level vocabulary as one of ours: its ids stay, our control tokens follow them.

in:  a published tokenizer.json and the decoder that speaks it
out: a Tokenizer of ours, and the decoder with a row for each of its ids

Published control tokens and unused rows behind the vocabulary are dropped, since ours take their places.
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
    """The vocabulary in a tokenizer.json with our control tokens on top.

    Raises DataError for another kind than byte-level BPE, or ids with gaps.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        kind, vocabulary = table["model"]["type"], table["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no tokenizer that can be read: {error!r}") from None
    spelled = byte_table()
    if kind != "BPE" or not all(char in vocabulary for char in spelled):
        raise DataError(f"{path} is no byte-level BPE: only these can carry our control tokens")
    foreign = [token for token in vocabulary if any(char not in spelled for char in token)]
    if foreign or sorted(vocabulary.values()) != list(range(len(vocabulary))):
        what = f"holds {foreign[0]!r}, which spells no bytes" if foreign else "has gaps between its ids"
        raise DataError(f"{path} {what}: our control tokens find no place behind it")
    return Tokenizer.from_merges({**table, "truncation": None, "padding": None})


def with_vocabulary(model: Decoder, tokenizer: Tokenizer, document_mark: int | None) -> Decoder:
    """The same decoder over the tokenizer's ids.

    What marks a document's end in the published model becomes our beginning and end of a document; the other control
    tokens begin as the mean of all rows, from which a softmax learns fastest
    (https://nlp.stanford.edu/~johnhew/vocab-expansion.html).
    """
    first = tokenizer.bos
    rows = model.config.vocab_size
    if first > rows:
        raise DataError(
            f"the vocabulary has {first} ids and the model only {rows}: they don't belong together"
        )

    def fitted(matrix: Tensor) -> Tensor:
        new = matrix[:first].mean(dim=0).expand(tokenizer.vocab_size, -1).clone()
        new[:first] = matrix[:first]
        if document_mark is not None and document_mark < rows:
            new[[tokenizer.bos, tokenizer.eos]] = matrix[document_mark]
        return new

    wider = Decoder(replace(model.config, vocab_size=tokenizer.vocab_size))
    by_token = ("model.embed_tokens.weight", "lm_head.weight")
    with torch.no_grad():
        state = {
            name: fitted(value) if name in by_token else value for name, value in model.state_dict().items()
        }
        wider.load_state_dict(state)
    return wider
