"""Cost of document masks in a training step, and memory of the chunked cross-entropy.

in:  nothing; the device is chosen as for training (CUDA where there is one)
out: tokens/s with and without document masks; memory of a step with the chunked cross-entropy and with a plain one

    .venv/bin/python benchmarks/masking.py

Three models take turns on the same rows, which are packed with documents of 160 tokens on average: with the attention
of pretraining, in which documents don't see each other; with plain causal attention, computed as PyTorch's fused kernel
does it; on a CPU also by the same blocks as ours under one causal mask. The cost is against the faster plain one:
the median over the rounds. Memory is what tensors take, as the profiler counts every allocation of one step after the
first: the most at a time, and the largest single tensor.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import trainee
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from groundup.core.runtime import Runtime
from groundup.model.architectures.qwen3 import Qwen3
from groundup.model.attention import AttentionKernel
from groundup.parallel.cpu import BLOCKS, document_mask_bf16
from groundup.parallel.hardware import Hardware, choose_hardware

MEBI = 2**20


@dataclass(frozen=True)
class Memory:
    """Bytes allocated during one step."""

    peak: int
    largest: int
    """the largest single tensor"""


def _see_nothing(segments: Tensor, window: int) -> None:
    """A mask function for causal kernels, which need no mask."""


def _attend_causal(q: Tensor, k: Tensor, v: Tensor, _: None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] > k.shape[1])


def _see_row(segments: Tensor, window: int) -> Tensor:
    return document_mask_bf16(torch.zeros_like(segments[:1]), window)


def kernels(hardware: Hardware) -> dict[str, AttentionKernel | None]:
    """Attention kernels: pretraining's (None = automatic), then those without document masks."""
    kernels: dict[str, AttentionKernel | None] = {
        "document masks": None,
        "causal, fused": AttentionKernel("causal", _see_nothing, _attend_causal),
    }
    if hardware.can_compile and hardware.device.type == "cpu":
        kernels["causal, blocks"] = AttentionKernel("causal blocks", _see_row, BLOCKS.attend)
    return kernels


def cost(
    hardware: Hardware, layers: int, width: int, seq_len: int, tokens: int, rounds: int, steps: int
) -> str:
    """A line of the table: tokens/s of every kernel."""
    config = Qwen3(d_model=width).config(layers, vocab_size=4096, max_seq_len=seq_len)
    models = {name: trainee.Trainee(config, hardware, kernel) for name, kernel in kernels(hardware).items()}
    batch = trainee.batch(trainee.token_rows(tokens // seq_len, seq_len + 1, 4096), hardware.device)
    rates: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            rates[name].append(_rate(model, batch, steps))
    torch.compiler.reset()  # the next shape's kernels must not run into the limit of how often a layer is compiled
    masked, *plain = rates.values()
    best = max(plain, key=statistics.median)
    ratio = statistics.median(ours / other for ours, other in zip(masked, best, strict=True))
    spelled = " | ".join(f"{statistics.median(rate):,.0f}" for rate in rates.values())
    return f"| {layers} x {width}, {tokens // seq_len} x {seq_len} | {spelled} | {1 - ratio:+.1%} |"


def _rate(model: trainee.Trainee, batch: trainee.Batch, steps: int) -> float:
    """Tokens/s without the first step, which may compile."""
    with tempfile.TemporaryDirectory() as folder:
        return model.train(lambda step: [batch], steps + 1, Path(folder)).tokens_per_second


def full_logits(hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Unchunked cross-entropy: all logits at once, in fp32."""
    losses = F.cross_entropy((hidden @ head.to(hidden.dtype).T).float(), targets, reduction="none")
    return (losses * weights).sum()


def step_memory(
    hardware: Hardware,
    loss: trainee.Loss | None,
    layers: int,
    width: int,
    vocab: int,
    seq_len: int,
    rows: int,
) -> Memory:
    """Allocations of one training step; `loss` as in `Trainee`."""
    config = Qwen3(d_model=width).config(layers, vocab, seq_len)
    model = trainee.Trainee(config, hardware, loss=loss)
    batch = trainee.batch(trainee.token_rows(rows, seq_len + 1, vocab), hardware.device)
    _rate(model, batch, 1)  # compiles, and makes the optimizer's state
    activities = [ProfilerActivity.CUDA] if hardware.device.type == "cuda" else []
    with profile(activities=[ProfilerActivity.CPU, *activities], profile_memory=True) as profiled:
        model.model.zero_grad()
        model.loss(model.model, batch)[0].backward()
    return _allocations(profiled, hardware.device)


def _allocations(profiled: profile, device: torch.device) -> Memory:
    """Parse the profiler's trace: `[memory]` events are allocations (bytes > 0) and releases (< 0)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    kind = 1 if device.type == "cuda" else 0  # as in c10::DeviceType
    changes = [
        (event["ts"], event["args"]["Bytes"])
        for event in events
        if event.get("name") == "[memory]" and event["args"]["Device Type"] == kind
    ]
    held = peak = 0
    for _, size in sorted(changes, key=lambda change: change[0]):
        held += size
        peak = max(peak, held)
    return Memory(peak, max(size for _, size in changes))


def main(rounds: int, steps: int, rows: int, tokens: int) -> None:
    """Both tables."""
    hardware = choose_hardware(Runtime())
    names = list(kernels(hardware))
    print(f"| shape, rows | {' | '.join(f'{name}, tokens/s' for name in names)} | cost of masks |")
    print("|---" * (len(names) + 2) + "|")
    for layers, width, seq_len in ((4, 256, 512), (8, 512, 512), (4, 256, 2048)):
        print(cost(hardware, layers, width, seq_len, tokens, rounds, steps), flush=True)
    vocab, seq_len = 32_768, 2048
    print(f"\n4 x 256, vocabulary {vocab:,}, {rows} x {seq_len} tokens; all logits in fp32 would take "
          f"{rows * seq_len * vocab * 4 / MEBI:,.0f} MiB")  # fmt: skip
    print("| cross-entropy | peak, MiB | largest tensor, MiB |\n|---|---|---|")
    for name, loss in (("chunked", None), ("plain", full_logits)):
        memory = step_memory(hardware, loss, 4, 256, vocab, seq_len, rows)
        print(f"| {name} | {memory.peak / MEBI:,.0f} | {memory.largest / MEBI:,.0f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each turn")
    parser.add_argument("--rows", type=int, default=2, help="sequences of the step whose memory is measured")
    parser.add_argument(
        "--tokens", type=int, default=4096, help="tokens per step, in the table of the masks' cost"
    )
    given = parser.parse_args()
    main(given.rounds, given.steps, given.rows, given.tokens)
