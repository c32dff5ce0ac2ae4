"""Held weights: the blocks of a model's parameters that training leaves unchanged.

in:  a model whose config has an induction circuit (`model/induction.py`), whole or sharded over ranks
out: HeldWeights, which zeroes the blocks' gradients before an optimizer step and undoes weight decay after it

A held block has the same bits after a step with any optimizer. A gradient of zero also keeps the block out of the
gradient's norm, out of AdamW's moments and, since its rows or columns of the momentum are zero, out of the orthogonal
factor that Muon takes of the rest of the matrix.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from groundup.model.induction import Block, held_blocks
from groundup.model.value_head import decoder_of, model_roots
from groundup.parallel.shard import local, local_shard


@dataclass(frozen=True)
class _HeldBlock:
    """This rank's part of a held block."""

    parameter: nn.Parameter
    axis: int
    indices: Int[Tensor, " held"]
    """within this rank's shard"""

    def zero_gradient(self) -> None:
        if self.parameter.grad is not None:
            local(self.parameter.grad).index_fill_(self.axis, self.indices, 0.0)

    def values(self) -> Tensor:
        return local(self.parameter.data).index_select(self.axis, self.indices)

    def put(self, values: Tensor) -> None:
        local(self.parameter.data).index_copy_(self.axis, self.indices, values)


@dataclass(frozen=True)
class HeldWeights:
    """All held blocks of a model; empty where its config has no circuit."""

    blocks: tuple[_HeldBlock, ...]

    @staticmethod
    def of(model: nn.Module) -> "HeldWeights":
        """The blocks of the parameters that are trained. A tied copy of the embedding is held like the embedding."""
        return HeldWeights(
            tuple(
                _HeldBlock(parameter, block.axis, indices)
                for parameter, block in named_blocks(model)
                if parameter.requires_grad and len(indices := _local_indices(parameter, block))
            )
        )

    @torch.no_grad()
    def zero_gradients(self) -> None:
        """Set the gradients of all held blocks to zero."""
        for block in self.blocks:
            block.zero_gradient()

    @torch.no_grad()
    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One step of the optimizer that leaves the held blocks unchanged: what it decays is put back."""
        values = [block.values() for block in self.blocks]
        optimizer.step()
        for block, held in zip(self.blocks, values, strict=True):
            block.put(held)


def named_blocks(model: nn.Module) -> Iterator[tuple[nn.Parameter, Block]]:
    """The parameters with held blocks, and the blocks."""
    for root in model_roots(model):
        decoder = decoder_of(root)
        for name, parameter in decoder.named_parameters():
            for block in held_blocks(decoder.config, name):
                yield parameter, block


def _local_indices(parameter: nn.Parameter, block: Block) -> Int[Tensor, " held"]:
    """The indices of a block along its axis in this rank's shard, whatever its distribution."""
    shape = [1] * parameter.dim()
    shape[block.axis] = parameter.shape[block.axis]
    numbers = torch.arange(parameter.shape[block.axis]).view(shape).expand(parameter.shape)
    if isinstance(parameter, DTensor):
        numbers = local_shard(numbers, parameter)
    if not numbers.numel():
        return torch.empty(0, dtype=torch.int64)
    for axis in range(numbers.dim()):
        if axis != block.axis:
            numbers = numbers.narrow(axis, 0, 1)
    line = numbers.flatten()
    held = ((line >= block.start) & (line < block.stop)).nonzero().flatten()
    return held.to(local(parameter.data).device)
