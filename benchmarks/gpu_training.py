"""Training of about a billion parameters on one GPU, relative to its rate of matrix products.

in:  nothing; --small runs in seconds on a CPU
out: a row per precision: tokens/s, share of the bf16 matrix-product rate of the same run, memory, loss; as JSON too

    .venv/bin/python benchmarks/gpu_training.py --json gpu.json

Qwen3's shape with 18 layers of 2048 (1.04 billion parameters), rows of 4096 tokens packed with documents, AdamW, the
project's own loop. Shares of every precision are of the bf16 rate, timed before and after it. The data are made up,
half of them predictable, and the same for each precision, so the losses can be compared: mean of the last tenth.
"""

import argparse
import gc
import json
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import torch
import trainee

from groundup.core.runtime import ActivationCheckpointing, Runtime
from groundup.model import flops
from groundup.model.config import DecoderConfig
from groundup.parallel.hardware import Precision, choose_hardware, matmul_rate, micro_batch_rows

BILLION = DecoderConfig(
    vocab_size=32_768,
    d_model=2048,
    n_layers=18,
    n_heads=16,
    n_kv_heads=8,
    head_dim=128,
    d_ff=6144,
    rope_theta=1_000_000.0,
    max_seq_len=4096,
)
SMALL = DecoderConfig(
    vocab_size=256, d_model=64, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=32, d_ff=128, max_seq_len=64
)


@dataclass(frozen=True)
class Measured:
    """The run of one precision."""

    precision: str
    parameters: int
    tokens_per_second: float
    share: float
    """fraction of the bf16 matrix-product rate"""
    matmul_tflops: float
    peak_gib: float
    """peak GPU memory; 0 on a CPU"""
    loss: float
    how: str


def measure(config: DecoderConfig, precision: Precision, rows: int, steps: int, runtime: Runtime) -> Measured:
    """Train `steps` steps of `rows` rows."""
    hardware, plain = choose_hardware(runtime, precision), choose_hardware(runtime, "bf16")
    micro_rows = micro_batch_rows(runtime, config, config.max_seq_len, rows, hardware.device)
    tokens = trainee.token_rows(steps * rows, config.max_seq_len + 1, config.vocab_size)
    before = matmul_rate(plain)
    if hardware.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model = trainee.Trainee(config, hardware)

    def batches(step: int) -> list[trainee.Batch]:
        chosen = tokens[step * rows : (step + 1) * rows]
        parts = [chosen[start : start + micro_rows] for start in range(0, rows, micro_rows)]
        return [trainee.batch(part, hardware.device) for part in parts]

    with tempfile.TemporaryDirectory() as folder:
        result = model.train(batches, steps, Path(folder))
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    rate = (before + matmul_rate(plain)) / 2
    per_token = flops.training_flops_per_token(config, config.max_seq_len)
    cuda = hardware.device.type == "cuda"
    return Measured(
        precision=precision,
        parameters=model.parameters,
        tokens_per_second=result.tokens_per_second,
        share=per_token * result.tokens_per_second / rate,
        matmul_tflops=rate / 1e12,
        peak_gib=torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0,
        loss=statistics.mean(line["loss"] for line in lines[-max(1, steps // 10) :]),
        how=f"{rows} rows in micro-batches of {micro_rows}; {hardware.reason}",
    )


def main(
    config: DecoderConfig,
    precisions: list[Precision],
    rows: int,
    steps: int,
    runtime: Runtime,
    out: Path | None = None,
) -> list[Measured]:
    """Measure each precision and print its row."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{where}, PyTorch {torch.__version__}, {flops.parameters(config):,} parameters, "
          f"rows of {config.max_seq_len} tokens, {steps} steps")  # fmt: skip
    print(
        "| precision | tokens/s | share of the bf16 rate | that rate, TFLOP/s | peak GiB | last loss | how |"
    )
    print("|---|---|---|---|---|---|---|")
    measured = []
    for precision in precisions:
        one = measure(config, precision, rows, steps, runtime)
        measured.append(one)
        print(
            f"| {one.precision} | {one.tokens_per_second:,.0f} | {one.share:.3f} | {one.matmul_tflops:.2f} "
            f"| {one.peak_gib:.1f} | {one.loss:.4f} | {one.how} |",
            flush=True,
        )
        gc.collect()  # the model's modules refer to each other; its memory must be free for the next one
    if out:
        out.write_text(json.dumps([asdict(one) for one in measured], indent=1))
    return measured


if __name__ == "__main__":
    known = get_args(Precision)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a tiny model, to test the script")
    parser.add_argument(
        "--precision", nargs="+", choices=known, default=[name for name in ("bf16", "fp8") if name in known]
    )
    parser.add_argument("--rows", type=int, default=16, help="sequences per optimizer step")
    parser.add_argument("--micro-batch", type=int, default=0, help="sequences per micro-batch; 0 = automatic")
    parser.add_argument(
        "--activation_checkpointing", choices=get_args(ActivationCheckpointing), default="none"
    )
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    shape = SMALL if given.small else BILLION
    runtime = Runtime(micro_batch=given.micro_batch, activation_checkpointing=given.activation_checkpointing)
    main(shape, given.precision, given.rows, given.steps, runtime, given.json)
