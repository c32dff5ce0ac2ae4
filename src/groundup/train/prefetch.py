"""Prepares the next step's batches while the current step computes.

in:  `batches(step)`, a function of the step alone
out: the same function, which mostly finds its answer ready, on the device

One thread reads rows, lays them out and starts their way to the device, so the loop doesn't wait for the disk.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
StepBatches = Callable[[int], Sequence[Item] | None]


@contextmanager
def prefetched(batches: StepBatches[Item], steps: int, device: torch.device) -> Iterator[StepBatches[Item]]:
    """`batches`, made one step ahead of the requested step, and moved to `device`.

    An error is raised when its own step is asked for, not earlier. The thread ends with the context.
    """

    def make(step: int) -> Sequence[Item] | None:
        made = batches(step)
        return None if made is None else [to_device(batch, device) for batch in made]

    waiting: dict[int, Future[Sequence[Item] | None]] = {}

    def take(step: int) -> Sequence[Item] | None:
        now = waiting.pop(step, None) or pool.submit(make, step)
        if step + 1 < steps:
            waiting[step + 1] = pool.submit(make, step + 1)
        return now.result()

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        try:
            yield take
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def to_device(value: Any, device: torch.device) -> Any:
    """Every tensor of a batch, however deep in dataclasses, lists and tuples, on `device`; the rest as it is.

    From the CPU to a GPU it goes through pinned memory, so that nobody waits for it.
    """
    if isinstance(value, Tensor):
        if device.type != "cuda" or value.device.type != "cpu":
            return value.to(device)
        return value.pin_memory().to(device, non_blocking=True)
    if is_dataclass(value) and not isinstance(value, type):
        held = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        moved = {name: to_device(one, device) for name, one in held.items()}
        changed = {name: one for name, one in moved.items() if one is not held[name]}
        return replace(value, **changed) if changed else value
    if type(value) in (list, tuple):
        return type(value)(to_device(one, device) for one in value)
    return value
