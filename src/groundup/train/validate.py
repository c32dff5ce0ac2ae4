"""How well a model predicts held-out text, in bits per byte: comparable across tokenizers.

in:  a decoder, rows of token ids, the tokenizer they were made with
out: bits per byte over exactly the tokens that were scored
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.model.attention import segments_of
from groundup.model.decoder import Decoder
from groundup.model.losses import cross_entropy
from groundup.tokens.shards import Rows
from groundup.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenBatch:
    """Rows as a decoder learns from them or is scored on them. All tensors are [rows, seq_len]."""

    ids: Int[Tensor, "rows time"]
    targets: Int[Tensor, "rows time"]
    segments: Int[Tensor, "rows time"]
    weights: Float[Tensor, "rows time"]
    """1 where the target counts, 0 on padding and where the next document begins"""


def token_batch(rows: np.ndarray, tokenizer: Tokenizer, device: torch.device | str = "cpu") -> TokenBatch:
    """Rows [n, seq_len + 1] as inputs and the targets one further."""
    both = torch.from_numpy(rows).to(device)
    ids, targets = both[:, :-1], both[:, 1:]
    counts = (targets != tokenizer.pad) & (targets != tokenizer.bos)
    return TokenBatch(ids, targets, segments_of(ids, tokenizer.bos, tokenizer.pad), counts.float())


def bits_per_byte(
    model: Decoder, rows: Rows, tokenizer: Tokenizer, limit: int = 0, batch_rows: int = 8
) -> float:
    """Bits the model needs per byte of text: sum of -log2 p(target) / UTF-8 bytes of the same targets.

    Scores `limit` rows spread evenly over all (0 = all of them). The end of a document is scored and has no
    bytes; its beginning and padding aren't scored.
    """
    lengths = torch.tensor([len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)])
    for special in (tokenizer.bos, tokenizer.eos, tokenizer.pad):
        lengths[special] = 0
    count = min(limit, len(rows)) if limit else len(rows)
    chosen = np.linspace(0, len(rows) - 1, count).round().astype(np.int64)
    device = model.head_weight.device
    nats, size = 0.0, 0
    with torch.no_grad():
        for start in range(0, count, batch_rows):
            batch = token_batch(rows[chosen[start : start + batch_rows]], tokenizer, device)
            hidden = model.hidden(batch.ids, batch.segments).flatten(0, 1)
            weights = batch.weights.flatten()
            targets, cap = batch.targets.flatten(), model.config.logit_softcap
            loss, _ = cross_entropy(hidden, model.head_weight, targets, weights, cap=cap)
            nats += float(loss)
            size += int((lengths[batch.targets.cpu()] * batch.weights.cpu()).sum())
    return nats / math.log(2) / max(1, size)
