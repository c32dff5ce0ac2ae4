"""Step metrics: reduced over all ranks and read from the device as floats.

in:  tensors and numbers by name
out: the same as floats, with one small transfer from the device
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from groundup.parallel.context import SINGLE, ParallelContext

StepMetrics = Mapping[str, Tensor | float]


def accumulate_metrics(totals: dict[str, Any], metrics: StepMetrics) -> None:
    """Add a micro-batch's metrics to the step's totals, detached."""
    for name, part in metrics.items():
        detached = part.detach() if isinstance(part, Tensor) else part
        totals[name] = totals[name] + detached if name in totals else detached


def reduce_to_floats(
    values: StepMetrics, parallel: ParallelContext = SINGLE, identical: int = 0
) -> dict[str, float]:
    """All values as floats, summed over all ranks except the first `identical`, which are equal on all.

    Every rank must have the same names.
    """
    if parallel.size > 1:
        values = {name: torch.as_tensor(value) for name, value in values.items()}
    tensors = {name: value.detach() for name, value in values.items() if isinstance(value, Tensor)}
    if not tensors:
        return {name: float(value) for name, value in values.items()}
    device = next(reversed(tensors.values())).device
    stacked = torch.stack(
        [value.reshape(()).to(device, torch.float64, non_blocking=True) for value in tensors.values()]
    )
    parallel.sum_all_stages(stacked[identical:])
    read = dict(zip(tensors, stacked.tolist(), strict=True))
    return {name: float(read.get(name, value)) for name, value in values.items()}
