"""Applies all axes of a layout to a model, in the order in which they can be applied.

in:  a decoder, a value model or both in one module, on the hardware or on the meta device; the ranks
out: the same module, sharded over the ranks
"""

from torch import nn

from groundup.core.runtime import Schedule
from groundup.model.decoder import Decoder
from groundup.model.value_head import decoder_of, model_roots
from groundup.parallel.context import ParallelContext
from groundup.parallel.context_parallel import context_parallel
from groundup.parallel.expert_parallel import expert_parallel
from groundup.parallel.hardware import Hardware
from groundup.parallel.pipeline_parallel import Stage, split_stages
from groundup.parallel.shard import InitTensor, shard
from groundup.parallel.split_log_probs import split_heads
from groundup.parallel.tensor_parallel import tensor_parallel


def parallelize(
    model: nn.Module,
    parallel: ParallelContext,
    hardware: Hardware,
    schedule: Schedule,
    init_tensor: InitTensor,
) -> list[Stage]:
    """Split matrices, positions, experts and layers over the axes, then shard the rest of each rank.

    A model on the meta device gets its initial weights. On a single rank the model does not change.
    Returns this rank's stages of a pipeline, if there is one. Raises GroundupError where the decoder can't be split in
    that way.
    """
    for root in model_roots(model):
        decoder = decoder_of(root)
        tensor_parallel(decoder, parallel)
        split_heads(root, parallel)
        context_parallel(decoder, parallel)
        expert_parallel(decoder, parallel)
    stages = split_stages(model, parallel, schedule, hardware) if isinstance(model, Decoder) else []
    shard(model, stages, parallel, hardware, init_tensor)
    return stages
