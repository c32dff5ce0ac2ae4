"""A decoder in groundup's training loop with batches from memory, for the speed benchmarks.

in:  a DecoderConfig, a Hardware, rows of token ids
out: a Trainee whose `train` takes steps; rows packed with documents, as batches
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from groundup.core.progress import Reporter
from groundup.core.runtime import Runtime
from groundup.core.stage import StageContext
from groundup.model.attention import AttentionKernel, segments_of
from groundup.model.config import DecoderConfig
from groundup.model.decoder import Decoder
from groundup.model.losses import chunk_with_gradient, cross_entropy
from groundup.parallel.engines.native import NativeEngine
from groundup.parallel.hardware import Hardware, compiled, prepare_model
from groundup.train.loop import Probe, TrainResult, TrainSpec, train
from groundup.train.optimizers.adamw import AdamW

BOS, PAD = 0, 1
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(hidden [positions width], head [vocab width], targets, weights) -> a scalar loss."""


@dataclass(frozen=True)
class Batch:
    """A micro-batch. All tensors are [rows, time]; `segments` number the documents within a row."""

    ids: Int[Tensor, "rows time"]
    targets: Int[Tensor, "rows time"]
    segments: Int[Tensor, "rows time"]


def token_rows(
    rows: int, width: int, vocab: int, document: int = 160, seed: int = 0
) -> Int[np.ndarray, "rows width"]:
    """Packed sequences of documents of `document` tokens on average.

    Tokens are as unevenly frequent as words; four of five pairs follow a rule that a model can learn.
    """
    draw = np.random.default_rng(seed)
    rank = draw.random((rows, width))
    tokens = (2 + (vocab - 2) ** rank).astype(np.int64).clip(2, vocab - 1)
    before, after = tokens[:, 0 : width - 1 : 2], tokens[:, 1::2]
    after[:] = np.where(draw.random(after.shape) < 0.8, 2 + before * 31 % (vocab - 2), after)
    tokens[draw.random((rows, width)) < 1 / document] = BOS
    tokens[:, 0] = BOS
    return tokens


def batch(rows: Int[np.ndarray, "rows width"], device: torch.device) -> Batch:
    """Inputs and shifted targets, with document masks as in pretraining."""
    both = torch.from_numpy(rows).to(device)
    ids, targets = both[:, :-1], both[:, 1:]
    return Batch(ids, targets, segments_of(ids, BOS, PAD))


class Trainee:
    """A fitted decoder with AdamW.

    kernel, loss: in place of the attention that fits the hardware, and of the chunked cross-entropy.
    """

    def __init__(
        self,
        config: DecoderConfig,
        hardware: Hardware,
        kernel: AttentionKernel | None = None,
        loss: Loss | None = None,
    ) -> None:
        self.model = Decoder(config)
        self.model.init_weights(0)
        prepare_model(self.model, hardware)
        if kernel is not None:
            self.model.set_attention_kernel(kernel)
        self._optimizer = AdamW().resolved(config.d_model).build(self.model.named_parameters())
        self._kernel = compiled(chunk_with_gradient, hardware)
        self._loss = loss or self._chunked

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def loss(self, model: Any, batch: Batch, positions: int = 0) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Mean over `positions`, those of the whole step; 0 = of this batch."""
        hidden = model.hidden(batch.ids, batch.segments).flatten(0, 1)
        weights = torch.full((len(hidden),), 1 / (positions or len(hidden)), device=hidden.device)
        return self._loss(hidden, model.head_weight, batch.targets.flatten(), weights), {}

    def _chunked(self, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        return cross_entropy(hidden, head, targets, weights, self._kernel)[0]

    def train(
        self,
        batches: Callable[[int], Sequence[Batch]],
        steps: int,
        folder: Path,
        probes: Sequence[Probe] = (),
    ) -> TrainResult:
        """Run `steps` steps in a new folder with a metrics.jsonl; no resume state is saved before the last."""
        micro_batches = batches(0)
        positions = sum(part.ids.numel() for part in micro_batches)
        context = StageContext(folder, Reporter(quiet=True))
        loss = partial(self.loss, positions=positions)
        spec = TrainSpec(
            label="train",
            engine=NativeEngine(self.model, self._optimizer, loss, 1.0),
            batches=batches,
            schedule=lambda step: 1.0,
            steps=steps,
            context=context,
            runtime=Runtime(checkpoint_seconds=1e9),
            tokens_per_step=positions,
            probes=probes,
        )
        result = train(spec)
        context.close()
        return result
