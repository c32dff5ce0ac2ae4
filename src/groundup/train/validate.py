"""Bits per byte of held-out text, which are comparable across tokenizers.

in:  a decoder, rows of token ids, the tokenizer they were made with
out: bits per byte over exactly the tokens that were scored
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from groundup.model.decoder import Decoder
from groundup.model.losses import Kernel
from groundup.parallel.context import SINGLE, ParallelContext, heartbeat
from groundup.tokens.shards import PackedDataset
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.batches import TokenBatch, own_positions, token_batch


def token_loss(model: Decoder, batch: TokenBatch, kernel: Kernel | None = None) -> Float[Tensor, ""]:
    """The weighted sum of every target's -log p, fp32. kernel: as in `losses.cross_entropy`."""
    device = model.head_weight.device
    positions = None if batch.positions is None else batch.positions.to(device)
    hidden = model.hidden(batch.ids.to(device), batch.segments.to(device), positions=positions).flatten(0, 1)
    targets, weights = batch.targets.flatten().to(device), batch.weights.flatten().to(device)
    return model.cross_entropy(
        hidden, model.head_weight, targets, weights, kernel, model.config.logit_softcap
    )[0]


def bits_per_byte(
    score: Callable[[TokenBatch], Float[Tensor, ""]],
    rows: PackedDataset,
    tokenizer: Tokenizer,
    limit: int = 0,
    batch_rows: int = 8,
    parallel: ParallelContext = SINGLE,
) -> float:
    """Bits the model needs per byte of text: sum of -log2 p(target) / UTF-8 bytes of the same targets.

    score: `token_loss` of a model. Takes `limit` rows spread evenly over all (0 = all of them). The end of a document
    is scored and has no bytes; its beginning and padding aren't scored. With several ranks, each scores its share.
    """
    lengths = torch.tensor([len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)])
    for special in (tokenizer.bos, tokenizer.eos, tokenizer.pad):
        lengths[special] = 0
    count = min(limit, len(rows)) if limit else len(rows)
    chosen = np.linspace(0, len(rows) - 1, count).round().astype(np.int64)
    local_rows = chosen[parallel.dp_rank :: parallel.dp_size]
    # Ranks compute in step: one with a row less scores the first row without weight.
    missing = -(-count // parallel.dp_size) - len(local_rows)
    row_weights = np.concatenate([np.ones(len(local_rows), np.float32), np.zeros(missing, np.float32)])
    local_rows = np.concatenate([local_rows, chosen[:1].repeat(missing)])
    sums = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad():
        for start in range(0, len(local_rows), batch_rows):
            heartbeat()
            at = slice(start, start + batch_rows)
            batch = own_positions(token_batch(rows[local_rows[at]], tokenizer), parallel)
            batch = replace(batch, weights=batch.weights * torch.from_numpy(row_weights[at, None]))
            sums += torch.tensor([float(score(batch)), float((lengths[batch.targets] * batch.weights).sum())])
    if not parallel.is_last_stage:
        sums.zero_()
    nats, size = parallel.sum_all_stages(sums).tolist()
    return float(nats / math.log(2) / max(1, size))
