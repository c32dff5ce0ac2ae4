"""The micro-batches of a training step: packed sequences of token ids with targets and loss weights.

in:  rows, which of them a step reads, the tokenizer they were made with
out: micro-batches of ids, targets, documents and weights; with several ranks, this one's
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.model.attention import segments_of
from groundup.parallel.context import ParallelContext
from groundup.tokens.shards import PackedDataset
from groundup.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenBatch:
    """Packed sequences that a decoder is trained or scored on. All tensors are [rows, seq_len]."""

    ids: Int[Tensor, "rows time"]
    targets: Int[Tensor, "rows time"]
    segments: Int[Tensor, "rows time"]
    weights: Float[Tensor, "rows time"]
    """loss weight of the target; 0 on padding and where the next document begins"""
    positions: Int[Tensor, "1 time"] | None = None
    """positions of these tokens in their rows (context parallel; `segments` has all positions); None = whole rows"""
    whole_row_weights: Float[Tensor, " rows"] | None = None
    """summed weights of the whole rows, where this batch has a part of their positions"""
    total: float = 1.0
    """divides the loss: the weight of the whole step, where `weights` are not divided by it already"""

    @property
    def row_weights(self) -> Float[Tensor, " rows"]:
        """The summed weights of each whole row."""
        return self.weights.sum(dim=1) if self.whole_row_weights is None else self.whole_row_weights


def token_batch(rows: np.ndarray, tokenizer: Tokenizer, device: torch.device | str = "cpu") -> TokenBatch:
    """Rows [n, seq_len + 1] as inputs, and targets shifted by one."""
    both = torch.from_numpy(rows).to(device)
    ids, targets = both[:, :-1], both[:, 1:]
    counts = (targets != tokenizer.pad) & (targets != tokenizer.bos)
    return TokenBatch(ids, targets, segments_of(ids, tokenizer.bos, tokenizer.pad), counts.float())


def own_positions(batch: TokenBatch, parallel: ParallelContext) -> TokenBatch:
    """This rank's positions of whole rows."""
    if parallel.cp_group is None:
        return batch
    time = batch.ids.shape[1]
    at = parallel.positions(time)
    positions = torch.arange(time, device=batch.ids.device)[None, at]
    return TokenBatch(
        batch.ids[:, at],
        batch.targets[:, at],
        batch.segments,
        batch.weights[:, at],
        positions,
        batch.row_weights,
    )


def step_batches(
    rows: PackedDataset,
    rows_of: Callable[[int], np.ndarray],
    tokenizer: Tokenizer,
    micro_rows: int,
    parallel: ParallelContext,
    step: int,
) -> list[TokenBatch]:
    """This rank's micro-batches of a step, their weights divided by the weight of the whole step of all ranks.

    rows_of: step -> the rows it reads, of all ranks.
    """
    whole = token_batch(rows[rows_of(step)], tokenizer)
    weights = whole.weights / whole.weights.sum().clamp(min=1)
    tensors = (whole.ids, whole.targets, whole.segments, weights)
    local_rows = parallel.dp_slice(len(weights))
    parts = (torch.split(tensor[local_rows], micro_rows) for tensor in tensors)
    return [own_positions(TokenBatch(*part), parallel) for part in zip(*parts, strict=True)]


def document_ids(rows_of: Callable[[int], np.ndarray], spans: Path) -> Callable[[int], list[str]]:
    """step -> ids of the documents in its rows."""

    def documents(step: int) -> list[str]:
        table = pq.read_table(spans, columns=["document"], filters=[("row", "in", rows_of(step).tolist())])
        return [str(name) for name in table["document"].to_pylist()]

    return documents
