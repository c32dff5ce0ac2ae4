"""CPU training compared with transformers' Trainer and with the machine's rate of matrix products.

in:  a Python that has transformers and accelerate (see training_peer.py)
out: a table per shape: tokens/s, ratios to both peers, share of the matrix-product rate, seconds of the first step;
     the same and every round's figures in a JSON file

    python3 -m venv peer && peer/bin/pip install -r benchmarks/transformers.txt
    .venv/bin/python benchmarks/training.py --peer peer/bin/python --json training.json

Ours is `train()` with AdamW on rows in memory, compiled, with document masks as in pretraining. The peers are
`Trainer` on `LlamaForCausalLM`: at its defaults (fp32), and with torch_compile and bf16. All have the same shape, the
same rows and 8 of them per step, which is the Trainer's default. Each contender is a process; in every round each has
a turn of some seconds, and so have matrix products of 2048^3. Medians over the rounds; ratios and shares are taken
within a round first. Compiling happens before the first turn and is shown as the seconds of the first step.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trainee
from turns import Contender, Turns

from groundup.core.runtime import Runtime
from groundup.model import flops
from groundup.model.architectures.llama import Llama
from groundup.model.config import DecoderConfig
from groundup.model.hf_config import config_to_hf
from groundup.parallel.hardware import Hardware, choose_hardware
from groundup.train.loop import Probe

BATCH_ROWS = 8
LOSS_TOLERANCE = 0.1
"""Allowed difference of two initial losses in nats: both are near log(vocabulary)."""


@dataclass(frozen=True)
class Shape:
    """Depth and width; the rest is derived by `model/scaling.py`."""

    layers: int
    width: int
    vocab: int = 4096
    seq_len: int = 512

    @staticmethod
    def parse(text: str) -> "Shape":
        """`4x256` -> 4 layers, 256 wide."""
        layers, width = text.split("x")
        return Shape(int(layers), int(width))

    def config(self) -> DecoderConfig:
        """Llama, i.e. without QK norm, as in the peer."""
        return Llama(d_model=self.width).config(self.layers, self.vocab, self.seq_len)


def compete(shape: Shape, rows: Path) -> None:
    """Train indefinitely in groundup's loop, one turn at a time."""
    hardware = choose_hardware(Runtime())
    contestant = trainee.Trainee(shape.config(), hardware)
    data = np.load(rows)

    def batches(step: int) -> list[trainee.Batch]:
        chosen = np.arange(step * BATCH_ROWS, (step + 1) * BATCH_ROWS) % len(data)
        return [trainee.batch(data[chosen], hardware.device)]

    with torch.no_grad():
        first_loss = float(contestant.loss(contestant.model, batches(0)[0])[0])
    turns = Turns(parameters=contestant.parameters, first_loss=first_loss, version=hardware.reason)

    def after_step(_: int) -> dict[str, float]:
        turns.after_step()
        return {}

    with tempfile.TemporaryDirectory() as folder:
        contestant.train(batches, 10**9, Path(folder), [Probe(1, after_step)])


def commands(shape: Shape, rows: Path, peer: str | None) -> dict[str, list[str]]:
    """The command of each contender."""
    spelled = f"{shape.layers}x{shape.width}"
    started = {"groundup": [sys.executable, __file__, "--compete", spelled, "--rows", str(rows)]}
    if peer:
        script = str(Path(__file__).with_name("training_peer.py"))
        config = json.dumps(config_to_hf(shape.config()))
        for kind in ("default", "compiled"):
            started[f"Trainer, {kind}"] = [peer, script, kind, str(rows), config]
    return started


def measure(shape: Shape, peer: str | None, rounds: int, seconds: float) -> dict[str, Any]:
    """Facts and rates of every contender, and the rate of matrix products, per round."""
    hardware = choose_hardware(Runtime())
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        rows = Path(folder) / "rows.npy"
        np.save(rows, trainee.token_rows(64 * BATCH_ROWS, shape.seq_len + 1, shape.vocab))
        contenders = [
            stack.enter_context(Contender(name, command))
            for name, command in commands(shape, rows, peer).items()
        ]
        alike({contender.name: contender.facts for contender in contenders})
        rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
        products = []
        for _ in range(rounds):
            for contender in contenders:
                turn = contender.run(seconds)
                rates[contender.name].append(turn.steps * BATCH_ROWS * shape.seq_len / turn.seconds)
            products.append(product_rate(hardware, seconds))
    return {
        "shape": asdict(shape),
        "flops_per_token": flops.training_flops_per_token(shape.config(), shape.seq_len),
        "facts": {contender.name: contender.facts for contender in contenders},
        "tokens_per_second": rates,
        "matmul_flops": products,
    }


def product_rate(hardware: Hardware, seconds: float, size: int = 2048) -> float:
    """Mean FLOP/s of matrix products over a turn."""
    a = torch.randn(size, size).to(hardware.device, hardware.dtype)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        a @ a
        done += 1
    return 2 * size**3 * done / (time.perf_counter() - began)


def alike(facts: dict[str, dict[str, Any]]) -> None:
    """Exit with a message unless all contenders have the same parameters and initial loss."""
    if len({fact["parameters"] for fact in facts.values()}) > 1:
        sys.exit(f"the models differ: {facts}")
    losses = [fact["first_loss"] for fact in facts.values()]
    if max(losses) - min(losses) > LOSS_TOLERANCE:
        sys.exit(f"the models start at different losses: {facts}")


def table(measured: dict[str, Any]) -> str:
    """Medians over the rounds as Markdown; ratios are groundup's rate over the row's."""
    rates, products = measured["tokens_per_second"], measured["matmul_flops"]
    shape, facts = measured["shape"], measured["facts"]
    lines = [
        f"{shape['layers']} layers x {shape['width']}, vocabulary {shape['vocab']}, {shape['seq_len']} tokens x "
        f"{BATCH_ROWS} rows, {facts['groundup']['parameters']:,} parameters; "
        f"matrix products {statistics.median(products) / 1e9:.0f} GFLOP/s, {len(products)} rounds",
        "| | tokens/s (lowest to highest) | groundup is x as fast | share of the matrix-product rate "
        "| first step, s | first loss |",
        "|---|---|---|---|---|---|",
    ]
    for name, rate in rates.items():
        ratio = statistics.median(ours / other for ours, other in zip(rates["groundup"], rate, strict=True))
        share = statistics.median(
            value * measured["flops_per_token"] / flops for value, flops in zip(rate, products, strict=True)
        )
        lines.append(
            f"| {name} | {statistics.median(rate):,.0f} ({min(rate):,.0f} to {max(rate):,.0f}) | {ratio:.2f} "
            f"| {share:.3f} | {facts[name]['first_step_seconds']:.1f} | {facts[name]['first_loss']:.3f} |"
        )
    return "\n".join(lines)


def main(shapes: list[Shape], peer: str | None, rounds: int, seconds: float, out: Path | None) -> None:
    """Measure every shape and print its table."""
    measured = []
    for shape in shapes:
        measured.append(measure(shape, peer, rounds, seconds))
        print(table(measured[-1]), flush=True)
        if out:
            out.write_text(json.dumps({"cores": os.cpu_count(), "shapes": measured}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer", help="the Python of an environment with transformers; default: groundup alone"
    )
    parser.add_argument("--shapes", nargs="+", type=Shape.parse, default=[Shape(4, 256), Shape(8, 512)])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=6.0, help="seconds of each contender's turn")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--compete", type=Shape.parse, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.compete:
        compete(given.compete, given.rows)
    else:
        main(given.shapes, given.peer, given.rounds, given.seconds, given.json)
