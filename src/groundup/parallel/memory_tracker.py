"""Memory tracker: bytes of live tensors at every operation, and FLOPs of products.

in:  a model, its optimizer and a batch; then a training step inside `with tracker`
out: tracker.peak and tracker.now: bytes of weights, gradients, optimizer state and the rest; tracker.flops

PyTorch's MemTracker also attributes memory to modules at every operation: two minutes for 80 layers that take seconds
here. It doesn't support a second micro-batch.
"""

import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary

import groundup.model.grouped_gemm  # noqa: F401  its operators are in FORMULAS
from groundup.parallel.comm_volume import bind_arguments
from groundup.parallel.shard import local

aten = torch.ops.aten
FLOP_FORMULAS: dict[Any, Callable[..., int]] = flop_registry | {
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
    aten._grouped_mm: lambda a, b, *_, **__: 2 * a.numel() * b.shape[-1],
    torch.ops.groundup.grouped_product: lambda rows, matrices, *_, **__: 2 * rows.numel() * matrices.shape[1],
    torch.ops.groundup.grouped_outer: lambda left, right, *_, **__: 2 * left.numel() * right.shape[1],
}
"""FLOPs of products: PyTorch's formulas, and those that it lacks."""


@dataclass(frozen=True)
class RankMemory:
    """Bytes on one rank."""

    weights: int
    gradients: int
    optimizer: int
    rest: int
    """activations, gathered weights, buffers of collectives, the batch"""

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.weights + self.gradients + self.optimizer + self.rest


class MemoryTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks the memory of every tensor from allocation to release."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Sequence[Any]) -> None:
        """To be created after the optimizer's first step, which allocates its state."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self._parameter_bytes = {parameter: _bytes([parameter]) for parameter in model.parameters()}
        optimizer_state = [value for state in optimizer.state.values() for value in state.values()]
        self._weights, self._optimizer = sum(self._parameter_bytes.values()), _bytes(optimizer_state)
        self._current = self._peak = 0
        self._at_peak: RankMemory | None = None
        self._sizes = WeakIdKeyDictionary()
        for tensor in _tensors([*model.parameters(), *model.buffers(), optimizer_state, *map(vars, batches)]):
            self._track(local(tensor))
        self._resize = torch.UntypedStorage.resize_

    @property
    def now(self) -> RankMemory:
        """Current memory."""
        gradients = sum(
            size for parameter, size in self._parameter_bytes.items() if parameter.grad is not None
        )
        rest = self._current - self._weights - self._optimizer - gradients
        return RankMemory(self._weights, gradients, self._optimizer, rest)

    @property
    def peak(self) -> RankMemory:
        """Memory at its peak."""
        return self.now if self._at_peak is None or self._current > self._peak else self._at_peak

    def __enter__(self) -> "MemoryTracker":
        # FSDP2 frees what it has gathered by resizing it to nothing, which is no operation on tensors.
        tracker, resize = self, self._resize

        def resized(storage: torch.UntypedStorage, size: int) -> Any:
            result = resize(storage, size)
            tracker._update_size(storage)
            return result

        self._patch = mock.patch.object(torch.UntypedStorage, "resize_", resized)
        self._patch.start()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *details: Any) -> None:
        super().__exit__(*details)  # type: ignore[no-untyped-call]
        self._patch.stop()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # comes again, as operations on this rank's share
        if function is torch.ops._c10d_functional.wait_tensor.default:
            function(*args)
            return args[0]  # on fake tensors the operator returns a copy, which real ones don't have
        out = function(*args, **(kwargs or {}))
        self.flops += _flops(function, args, kwargs, out)
        for tensor in _tensors(out):
            self._track(tensor)
        return out

    def _track(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._sizes:
            self._sizes[storage] = [0]
            weakref.finalize(storage, self._change, self._sizes[storage], 0)
        self._update_size(storage)

    def _update_size(self, storage: torch.UntypedStorage) -> None:
        if storage in self._sizes:
            self._change(self._sizes[storage], storage.nbytes())

    def _change(self, size: list[int], new: int) -> None:
        """Record that a storage of `size` now has `new` bytes. The parts of a peak are computed when it is over."""
        if new < size[0] and self._current > self._peak:
            self._peak, self._at_peak = self._current, self.now
        self._current += new - size[0]
        size[0] = new


def _tensors(tree: Any) -> Iterable[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _bytes(tree: Any) -> int:
    """Bytes of this rank's shards; a storage with several views counts once."""
    storages = {id(storage): storage for storage in (local(t).untyped_storage() for t in _tensors(tree))}
    return sum(storage.nbytes() for storage in storages.values())


def _flops(function: Any, args: Any, kwargs: Any, out: Any) -> int:
    formula = FLOP_FORMULAS.get(getattr(function, "overloadpacket", None))
    if formula is None:
        return 0
    halves = 2 if bind_arguments(function, args, kwargs).get("is_causal") else 1
    return formula(*args, **(kwargs or {}), out_val=out) // halves
