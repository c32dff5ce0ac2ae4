"""Health metrics of a training: update ratios, attention logits, step time, memory.

in:  the model before and after an optimizer step, and a few rows that stay the same
out: numbers for the step's line in metrics.jsonl (see `ModelWatch`)

Update ratio: |w' - w| / |w| of every parameter, about 1e-3 where the learning rate suits. Attention logits:
the largest |q . k| / sqrt(dim) that a layer compares; where they grow without end, a training is about to
diverge (Dehghani et al. 2023, https://arxiv.org/abs/2302.05442). Nothing here changes a weight or draws a
random number, and on steps that aren't measured nothing waits for the device.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from groundup.model.attention import AttentionKernel, attend_fused, document_mask
from groundup.model.decoder import Decoder
from groundup.parallel.hardware import memory_held
from groundup.parallel.shard import local
from groundup.train.batches import TokenBatch

SAMPLE_SIZE = 65_536
"""Maximum numbers of one parameter that its update ratio is computed from; a whole copy would double the memory."""

Values = dict[str, float | Tensor]


class Monitor(Protocol):
    """Called by the training loop around every optimizer step. Steps count from 1, as in metrics.jsonl."""

    def before_step(self, step: int) -> None:
        """Called with the gradients computed and the old weights."""
        ...

    def after_step(self, step: int) -> Values:
        """Called with the new weights; the returned values join the step's line."""
        ...


class ModelMonitor:
    """Measures the first step and every `every`-th.

    update_ratio/<part>                    median over the parameters of a part of the model (see `part_of`)
    update_ratio_min/, update_ratio_max/   the extremes; update_ratio_max: the largest of all
    attention_logit_max/layer_<n>          of the rows in `probe`; attention_logit_max: the largest of all
    step_seconds                           median wall time of a step since the last measurement
    flops_utilization                      flops_per_step / step_seconds / rate(), a share of the limit
    memory_gb                              10^9 bytes: resident on a CPU, peak allocated on a GPU
    """

    def __init__(
        self,
        model: nn.Module,
        every: int = 50,
        probe: TokenBatch | None = None,
        flops_per_step: float = 0.0,
        rate: Callable[[], float] | None = None,
    ) -> None:
        """probe: rows on the model's device; without it, or where the model is no Decoder, no attention logits.

        rate: FLOP/s that the device reaches at best.
        """
        self._model, self._every, self._probe = model, every, probe
        self._flops, self._limit = flops_per_step, rate
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._before: list[Tensor] = []
        self._ended: float | None = None
        self._seconds: list[float] = []

    def before_step(self, step: int) -> None:
        """Keep a sample of every weight, if this step is measured."""
        if self._measured(step):
            self._before = [sample(p).clone() for p in self._parameters.values()]

    def after_step(self, step: int) -> Values:
        """Record the step's time; the other metrics only at measured steps."""
        now = time.perf_counter()
        if self._ended is not None:
            self._seconds.append(now - self._ended)
        values = self._measure() if self._measured(step) else {}
        self._ended = time.perf_counter()  # a measurement is no part of the next step
        return values

    def _measured(self, step: int) -> bool:
        return step == 1 or step % self._every == 0

    def _measure(self) -> Values:
        after = [sample(p) for p in self._parameters.values()]
        values = _by_part(list(self._parameters), update_ratios(self._before, after).tolist())
        self._before = []
        if self._probe is not None and isinstance(self._model, Decoder):
            logits = attention_logits(self._model, self._probe).tolist()
            values |= {f"attention_logit_max/layer_{n}": logit for n, logit in enumerate(logits)}
            values["attention_logit_max"] = max(logits)
        if self._seconds:
            seconds = statistics.median(self._seconds)
            self._seconds = []
            values["step_seconds"] = seconds
            if self._flops and self._limit is not None:
                values["flops_utilization"] = self._flops / seconds / self._limit()
        device = next(iter(self._parameters.values())).device
        return {**values, "memory_gb": memory_held(device) / 1e9}


def part_of(name: str) -> str:
    """The part of a decoder that a parameter belongs to: embedding, head, attention, mlp, scale (norms, scalars)."""
    known = {"norm": "scale", "scalar": "scale", "embed": "embedding", "lm_head": "head", "score": "head",
             "self_attn": "attention", "mlp": "mlp"}  # fmt: skip
    return next((part for word, part in known.items() if word in name), "other")


def sample(parameter: Tensor) -> Tensor:
    """At most SAMPLED numbers of a parameter (of this rank's share), spread evenly, without copying it. No gradient."""
    local_weights = local(parameter.detach())
    stride = math.ceil(local_weights.numel() / SAMPLE_SIZE)
    # Odd, since rows are even: an even stride could pass through the same few columns of every row.
    return local_weights.flatten()[:: stride | 1]


def update_ratios(before: Sequence[Tensor], after: Sequence[Tensor]) -> Float[Tensor, " parameters"]:
    """|after - before| / |before| of each pair; infinite or NaN where a weight was zero before."""
    ratios = [
        torch.linalg.vector_norm(new.float() - old.float()) / torch.linalg.vector_norm(old.float())
        for old, new in zip(before, after, strict=True)
    ]
    return torch.stack(ratios)


def largest_logit(
    q: Float[Tensor, "batch heads time dim"],
    k: Float[Tensor, "batch kv_heads time dim"],
    mask: Bool[Tensor, "batch 1 time time"],
) -> Float[Tensor, ""]:
    """The largest |q . k| / sqrt(dim) among the pairs in the attention mask, computed in fp32, head by head."""
    groups = q.shape[1] // k.shape[1]
    largest = q.new_zeros((), dtype=torch.float32)
    for head in range(q.shape[1]):
        scores = q[:, head].float() @ k[:, head // groups].float().transpose(1, 2)
        largest = torch.maximum(largest, scores.abs().masked_fill(~mask[:, 0], 0.0).amax())
    return largest / math.sqrt(q.shape[-1])


@torch.no_grad()
def attention_logits(model: Decoder, rows: TokenBatch) -> Float[Tensor, " layers"]:
    """The largest attention logit of every layer on these rows.

    Goes through the layers eagerly and with a plain kernel, whatever training uses: values inside a
    compiled layer or a fused kernel can't be recorded.
    """
    largest: list[Tensor] = []

    def attend_and_record(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        largest.append(largest_logit(q, k, seen))
        return attend_fused(q, k, v, seen)

    usual = model.kernel
    model.set_attention_kernel(AttentionKernel("recording", document_mask, attend_and_record))
    try:
        model.hidden(rows.ids, rows.segments)
    finally:
        model.set_attention_kernel(usual)
    return torch.stack(largest)


def _by_part(names: Sequence[str], ratios: Sequence[float]) -> Values:
    parts: dict[str, list[float]] = {}
    for name, ratio in zip(names, ratios, strict=True):
        if math.isfinite(ratio):  # a matrix that starts at zero has no ratio in its first step
            parts.setdefault(part_of(name), []).append(ratio)
    values: Values = {}
    for part, ratios in sorted(parts.items()):
        values[f"update_ratio/{part}"] = statistics.median(ratios)
        values[f"update_ratio_min/{part}"] = min(ratios)
        values[f"update_ratio_max/{part}"] = max(ratios)
    if parts:
        values["update_ratio_max"] = max(max(ratios) for ratios in parts.values())
    return values
