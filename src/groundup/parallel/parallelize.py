"""A fitted model onto the ranks of its world: every axis of the layout, in the order in which they may be applied.

in:  a decoder that `fit` has put on the hardware, or one on the meta device, and a world
out: the same decoder, spread over the ranks
"""

from groundup.core.runtime import Schedule
from groundup.model.decoder import Decoder
from groundup.parallel.context import ParallelContext
from groundup.parallel.context_parallel import context_parallel
from groundup.parallel.expert_parallel import expert_parallel
from groundup.parallel.hardware import Hardware
from groundup.parallel.pipeline_parallel import Stage, cut
from groundup.parallel.shard import Weights, shard
from groundup.parallel.tensor_parallel import tensor_parallel


def parallelize(
    model: Decoder, world: ParallelContext, hardware: Hardware, schedule: Schedule, first: Weights
) -> list[Stage]:
    """Split matrices, positions, experts and layers as the world's axes say, then shard what each rank is left with.

    A model on the meta device gets its `first` weights. Alone in the world, a model stays as it is.
    Returns this rank's stages of a pipeline, if there is one. Raises GroundupError where the decoder can't be split in
    that way.
    """
    tensor_parallel(model, world)
    context_parallel(model, world)
    expert_parallel(model, world)
    stages = cut(model, world, schedule, hardware)
    shard(model, stages, world, hardware, first)
    return stages
