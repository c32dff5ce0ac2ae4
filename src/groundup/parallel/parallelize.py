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
from groundup.parallel.pipeline_parallel import Stage, split_stages
from groundup.parallel.shard import InitTensor, shard
from groundup.parallel.tensor_parallel import tensor_parallel


def parallelize(
    model: Decoder, parallel: ParallelContext, hardware: Hardware, schedule: Schedule, init_tensor: InitTensor
) -> list[Stage]:
    """Split matrices, positions, experts and layers as the world's axes say, then shard what each rank is left with.

    A model on the meta device gets its `first` weights. Alone in the world, a model stays as it is.
    Returns this rank's stages of a pipeline, if there is one. Raises GroundupError where the decoder can't be split in
    that way.
    """
    tensor_parallel(model, parallel)
    context_parallel(model, parallel)
    expert_parallel(model, parallel)
    stages = split_stages(model, parallel, schedule, hardware)
    shard(model, stages, parallel, hardware, init_tensor)
    return stages
