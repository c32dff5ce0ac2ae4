"""Validation: bits per byte of held-out text, which are comparable across tokenizers, and repeated random tokens.

in:  a decoder, rows of token ids, the tokenizer they were made with
out: bits per byte over exactly the tokens that were scored; how well the model repeats what it has read
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from groundup.model.decoder import Decoder
from groundup.model.induction import induction_accuracy, repeated_tokens
from groundup.model.losses import Kernel
from groundup.parallel.context import SINGLE, ParallelContext, heartbeat
from groundup.parallel.engine import TrainEngine
from groundup.parallel.engines.native import NativeEngine
from groundup.tokens.shards import PackedDataset
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.batches import TokenBatch, own_positions, token_batch
from groundup.train.utilization import MachineRate

REPEATED_TOKENS, REPEATED_SEQUENCES = 64, 16
"""Length and number of the random sequences of the metric `induction_accuracy`."""


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


def held_out_bpb(
    engine: TrainEngine, held_out: PackedDataset, tokenizer: Tokenizer, parallel: ParallelContext, limit: int
) -> float | None:
    """Bits per byte of the engine's model on at most `limit` held-out rows; None where there are none."""
    if not len(held_out):
        return None
    return bits_per_byte(engine.eval_loss, held_out, tokenizer, limit, parallel=parallel)


def validation_probe(
    score: Callable[[int], float | None], rate: MachineRate
) -> Callable[[int], dict[str, float]]:
    """Validation on a few packed sequences; also measures the machine's rate again."""

    def probe(step: int) -> dict[str, float]:
        rate.measure(seconds=0.2)
        value = score(16)
        return {} if value is None else {"val_bpb": value}

    return probe


def induction_metrics(engine: TrainEngine, tokenizer: Tokenizer, suffix: str) -> dict[str, float]:
    """`induction_accuracy`: how well the model repeats random tokens; empty where it is not whole on this rank."""
    if not isinstance(engine, NativeEngine) or not isinstance(engine.model, Decoder):
        return {}
    model = engine.model
    length = min(REPEATED_TOKENS, (model.config.max_seq_len - 1) // 2)
    if not engine.holds_whole_model or length < 2:
        return {}
    ids = repeated_tokens(tokenizer.bos, tokenizer.bos, length, REPEATED_SEQUENCES)
    return {f"induction_accuracy{suffix}": induction_accuracy(model, ids.to(engine.device))}
