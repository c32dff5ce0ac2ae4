"""A step's responses -> this rank's micro-batches, as many as every other rank has.

in:  rollouts that all ranks know, the indices of a step's responses
out: packed micro-batches of this rank's part; a rank that has fewer repeats one without a loss
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from groundup.align.packing import PackedBatch, pack_all
from groundup.align.rollouts import Rollouts
from groundup.align.session import SessionSetup

Batch = TypeVar("Batch")


def local_micro_batches(
    setup: SessionSetup,
    rollouts: Rollouts,
    responses: Sequence[int],
    build: Callable[[Sequence[int], PackedBatch], Batch],
    without_loss: Callable[[Batch], Batch],
) -> list[Batch]:
    """This rank's micro-batches of one step.

    build: (responses of a part, one of its packed micro-batches) -> micro-batch. without_loss: the same, of weight 0.
    """
    parallel, shape = setup.parallel, setup.shape
    sequences = rollouts.sequences()
    # A rank without a response of its own keeps in step with another rank's.
    parts = [responses[rank :: parallel.dp_size] or responses[:1] for rank in range(parallel.dp_size)]
    packed = [
        list(pack_all([[sequences[i]] for i in part], shape.rows, shape.time, shape.pad)) for part in parts
    ]
    local_part = parts[parallel.dp_rank]
    batches = [build(local_part, batch) for batch in packed[parallel.dp_rank]]
    if parallel.dp_rank >= len(responses):
        batches = [without_loss(batch) for batch in batches]
    return batches + [without_loss(batches[0])] * (max(map(len, packed)) - len(batches))
