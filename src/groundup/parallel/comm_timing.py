"""Communication timing: how a step's time divides into compute, communication and waiting, and for which rank.

in:  a ParallelContext, and one training step of all ranks inside `with CommTiming(parallel, device) as timing`
out: timing.metrics(), equal on all ranks

A collective ends for all of its ranks at about the same time and begins for each when the rank arrives. The rank with
the shortest time in it arrived last; the others waited for the difference. Clocks of ranks are never compared.

In an accounted step every collective is awaited where it is called, and a GPU finishes what it was given before and
after. So nothing overlaps, and the step is slower than others: one of many is enough. The shares say what there is to
hide, not what wasn't hidden.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Self

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.distributed import Work
from torch.utils._pytree import tree_leaves

from groundup.parallel.comm_volume import Collective, CommVolume
from groundup.parallel.context import ParallelContext
from groundup.parallel.hardware import memory_held

POINT_TO_POINT = "send"
"""Point-to-point sends aren't awaited: the receiver may only receive after this rank goes on."""


class CommTiming(CommVolume):  # type: ignore[no-untyped-call]
    """Measures the bytes and the seconds of each collective of one step."""

    def __init__(self, parallel: ParallelContext, device: torch.device) -> None:
        super().__init__(parallel)
        self._parallel, self._device = parallel, device
        self._durations: dict[str, list[float]] = defaultdict(list)
        """group -> seconds of each of its collectives, in their order"""
        self._seconds = 0.0

    def __enter__(self) -> Self:
        self._synchronize()
        self._began = time.perf_counter()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *details: Any) -> None:
        super().__exit__(*details)  # type: ignore[no-untyped-call]
        self._synchronize()
        self._seconds = time.perf_counter() - self._began

    def _run_collective(self, message: Collective, call: Callable[[], Any]) -> Any:
        if message.kind == POINT_TO_POINT:
            return call()
        self._synchronize()
        began = time.perf_counter()
        out = call()
        _wait_for(out)
        self._synchronize()
        self._durations[message.group].append(time.perf_counter() - began)
        return out

    def _synchronize(self) -> None:
        """Wait for the device, so that the clock measures its work."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def metrics(self) -> dict[str, float]:
        """Metrics of the step, equal on all ranks; all ranks must call it after the step.

        comm_bytes_<axis>: bytes sent by the rank that sent most. comm_seconds_<axis>: in its collectives, waiting
        included; mean over ranks. comm_share, idle_share: of the step's time, in collectives once all of their ranks
        were there, and waiting there for the last one; mean over ranks. straggler: the rank that was waited for
        longest; across axes that may be one that has waited itself. memory_gb_per_rank: 10^9 bytes of the rank that
        holds most (see `memory_held`). A rank that is alone has only this.
        """
        memory = memory_held(self._device)
        if self._parallel.mesh is None:
            return {"memory_gb_per_rank": memory / 1e9}
        sent = dict.fromkeys((group.axis for group in self._groups.values()), 0.0)
        taken = dict(sent)
        for (axis, _), size in self.sent.items():
            sent[axis] += size
        for name, seconds in self._durations.items():
            taken[self._groups[name].axis] += sum(seconds)
        waited, kept = self._waiting_seconds()
        of_all = self._gather_from_all([self._seconds, waited, kept, memory, *sent.values(), *taken.values()])
        steps, waiting, keeping, memories = of_all[:4]
        sizes, seconds_in = of_all[4:].chunk(2)
        metrics: dict[str, Tensor] = {}
        for axis, size, spent in zip(sent, sizes, seconds_in, strict=True):
            if size.any():
                metrics |= {f"comm_bytes_{axis}": size.max(), f"comm_seconds_{axis}": spent.mean()}
        metrics |= {
            "comm_share": ((seconds_in.sum(dim=0) - waiting) / steps).mean(),
            "idle_share": (waiting / steps).mean(),
            "straggler": keeping.argmax(),
            "memory_gb_per_rank": memories.max() / 1e9,
        }
        return {name: float(value) for name, value in metrics.items()}

    def _gather_from_all(self, values: list[float]) -> Float[Tensor, "figures ranks"]:
        """Each value of every rank."""
        local_metrics = torch.tensor(values, dtype=torch.float64)
        gathered = [torch.empty_like(local_metrics) for _ in range(self._parallel.size)]
        dist.all_gather(gathered, local_metrics)
        return torch.stack(gathered, dim=1)

    def _waiting_seconds(self) -> tuple[float, float]:
        """Seconds that this rank waited for others, and that others waited for it."""
        waited = waited_for = 0.0
        for name, (_, ranks) in self._groups.items():
            durations = torch.tensor(self._durations[name], dtype=torch.float64)
            if not len(durations):
                continue
            shortest, total = durations.clone(), durations.clone()
            dist.all_reduce(shortest, dist.ReduceOp.MIN, ranks)
            dist.all_reduce(total, group=ranks)
            waited += float((durations - shortest).sum())
            waited_for += float((total - ranks.size() * shortest)[durations == shortest].sum())
        return waited, waited_for


def _wait_for(out: Any) -> None:
    """Wait for a collective: c10d operators return a handle, functional ones a tensor."""
    leaves = tree_leaves(out)
    handles = [leaf for leaf in leaves if isinstance(leaf, torch.ScriptObject)]
    for handle in handles:
        Work.unbox(handle).wait()
    for leaf in leaves if not handles else ():
        if isinstance(leaf, Tensor):
            torch.ops._c10d_functional.wait_tensor(leaf)
