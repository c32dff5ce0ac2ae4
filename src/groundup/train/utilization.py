"""Throughput of a training as a fraction of the machine's own matrix-product rate.

in:  the hardware and the ranks; FLOPs per token and the result of a training
out: FLOP/s measured before, during and after the training; tokens/s and the fraction of that rate
"""

from dataclasses import dataclass, field
from typing import Any

from groundup.parallel.context import ParallelContext
from groundup.parallel.hardware import Hardware, matmul_rate
from groundup.train.loop import TrainResult


@dataclass
class MachineRate:
    """FLOP/s of all ranks together, measured on all at the same time; the machine's other load counts."""

    hardware: Hardware
    parallel: ParallelContext
    samples: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.measure()

    def measure(self, seconds: float = 1.0) -> None:
        """Take one more sample."""
        self.samples.append(self.parallel.size * matmul_rate(self.hardware, seconds=seconds))

    @property
    def latest(self) -> float:
        """The newest sample."""
        return self.samples[-1]

    @property
    def mean(self) -> float:
        """The mean of all samples."""
        return sum(self.samples) / len(self.samples)


def throughput(result: TrainResult, flops_per_token: float, rate: MachineRate) -> dict[str, Any]:
    """Steps, seconds, tokens/s over the timed steps, and the fraction of the machine's rate."""
    return {
        "steps": result.steps,
        "skipped_steps": result.skipped_steps,
        "transient_steps": result.transient_steps,
        "seconds": result.seconds,
        "tokens_per_second": result.tokens_per_second,
        "flops_utilization": flops_per_token * result.tokens_per_second / rate.mean,
        "flops_per_token": flops_per_token,
        "matmul_tflops": rate.mean / 1e12,
    }
