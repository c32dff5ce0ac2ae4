"""`runtime.layout = "auto"`: chooses the simplest layout whose step fits the ranks' memory.

in:  a decoder's config, rows and positions of a step, the ranks with their machines and memory
out: a Layout

The simplest layout in which a step fits is taken, and simple is what ranks needn't wait for: sharding alone, inside a
machine where the model fits there; then tensor parallel, which stays inside a machine; then context; then a pipeline
(the order of Llama 3's training, https://arxiv.org/abs/2407.21783, section 3.3.2).
"""

import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import gcd

import torch
import torch.distributed as dist

from groundup.core.errors import GroundupError
from groundup.core.runtime import ActivationCheckpointing, Layout, Runtime
from groundup.model.config import DecoderConfig
from groundup.parallel.hardware import usable_memory
from groundup.parallel.memory_estimate import memory_parts, tokens_that_fit


@dataclass(frozen=True)
class Cluster:
    """Ranks, machines and memory of a training."""

    ranks: int
    per_machine: int
    memory: int
    """bytes that each rank may use"""


def resolve_layout(
    runtime: Runtime, config: DecoderConfig, rows: int, seq_len: int, device: torch.device
) -> Layout:
    """The runtime's layout, chosen where it is "auto"; equal on all ranks. rows: sequences per step.

    Raises GroundupError where there is none in which a step fits.
    """
    if runtime.layout != "auto":
        return runtime.layout
    if not dist.is_initialized():
        return Layout()
    return find_layout(config, rows, seq_len, _gather_cluster(device), runtime.activation_checkpointing)


def find_layout(
    config: DecoderConfig,
    rows: int,
    seq_len: int,
    machines: Cluster,
    checkpointing: ActivationCheckpointing = "none",
) -> Layout:
    """The first layout, from simple to complex, that the decoder and the rows allow and whose step fits the memory.

    Raises GroundupError where none does.
    """
    for layout in _candidates(config, seq_len, machines):
        dp_size = machines.ranks // (layout.tensor * layout.context * layout.pipeline)
        positions = seq_len // layout.context
        if rows % dp_size or rows // dp_size % layout.pipeline:
            continue
        if (
            tokens_that_fit(config, checkpointing, machines.memory, memory_parts(layout, machines.ranks))
            >= positions
        ):
            return layout
    raise GroundupError(
        f'runtime.layout = "auto": no layout lets {machines.ranks} ranks with {machines.memory / 1e9:.0f} '
        f"GB each train "
        f"this decoder on {rows} rows of {seq_len} tokens a step. Take more ranks, more rows a step "
        '(pretrain.batch_tokens), or runtime.activation_checkpointing = "full"'
    )


def _candidates(config: DecoderConfig, seq_len: int, machines: Cluster) -> Iterator[Layout]:
    splits = _powers(machines.per_machine)
    splittable = not (config.biases or config.value_embeddings) and config.activation == "swiglu"
    chains = not (config.value_embeddings or config.embedding_scalars)
    for pipeline, context, tensor in product(_powers(machines.ranks), _powers(machines.ranks), splits):
        model_ranks = pipeline * context * tensor
        if machines.ranks % model_ranks or seq_len % (context * tensor):
            continue
        if tensor > 1 and not (splittable and config.n_kv_heads % tensor == 0 and config.d_ff % tensor == 0):
            continue
        if (pipeline > 1 and not (chains and config.n_layers >= pipeline)) or (
            context > 1 and config.positions == "learned"
        ):
            continue
        for replicate in _replica_counts(machines, pipeline * tensor, context):
            shared = machines.ranks // (pipeline * replicate * tensor)
            expert = 1 if config.moe is None else gcd(config.moe.n_experts, shared, machines.per_machine)
            yield Layout(
                pipeline=pipeline, context=context, tensor=tensor, replicate=replicate, expert=expert
            )


def _replica_counts(machines: Cluster, whole: int, context: int) -> Iterator[int]:
    """Replica counts to try: one per machine, so that weights stay inside it, then one in all."""
    count = machines.ranks // machines.per_machine
    if count > 1 and whole <= machines.per_machine and machines.per_machine % (whole * context) == 0:
        yield count
    yield 1


def _powers(largest: int) -> list[int]:
    return [2**power for power in range(largest.bit_length()) if 2**power <= largest]


def _gather_cluster(device: torch.device) -> Cluster:
    """All-gathered hosts and memory; the smallest machine counts."""
    local_entry = socket.gethostname(), usable_memory(device)
    entries: list[tuple[str, int]] = [local_entry] * dist.get_world_size()
    dist.all_gather_object(entries, local_entry)
    ranks_per_host = Counter(host for host, _ in entries)
    per_machine = min(ranks_per_host.values())
    memory = min(memory for _, memory in entries)
    # On a CPU the ranks of a machine share its memory.
    return Cluster(len(entries), per_machine, memory if device.type == "cuda" else memory // per_machine)
