"""A runtime says where and how the work runs: never part of an artifact's identity.

in:  the blueprint's section `runtime`
out: Runtime, which every stage is given beside its recipe
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from groundup.core.recipe import Strict
from groundup.core.registry import Plugin
from groundup.core.trackers import TrackerName

ActivationCheckpointing = Literal["none", "selective", "full"]
Schedule = Literal["1f1b", "interleaved", "zero_bubble"]


class Layout(Strict):
    """How ranks share a model. `layout = "auto"` finds the simplest in which a step fits.

    What pipeline x replicate x tensor leave of the ranks shards weights, experts and positions.
    """

    replicate: int = Field(
        default=1,
        ge=1,
        description="groups of ranks that each hold the whole model, sharded inside the group",
    )
    tensor: int = Field(
        default=1, ge=1, description="ranks that share every matrix and compute the same rows together"
    )
    expert: int = Field(
        default=1, ge=1, description="ranks, of those that shard, that hold different experts"
    )
    context: int = Field(default=1, ge=1, description="ranks that share the positions of long rows")
    pipeline: int = Field(
        default=1, ge=1, description="ranks that hold different layers; micro-batches pass through them"
    )
    schedule: Schedule = Field(
        default="1f1b",
        description="order of a pipeline's micro-batches: 1f1b, interleaved (two stages per rank, less waiting), "
        "zero_bubble (interleaved, gradients of weights later; not compiled)",
    )


class Runtime(Strict):
    """Where and how the work runs. Never part of an artifact's identity."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=0, ge=0, description="CPU threads; 0 = all cores")
    workers: int = Field(default=0, ge=0, description="processes that read and curate; 0 = one per core")
    ray: str = Field(
        default="", description="address of a Ray cluster that reads and curates (`host:port`, `auto`)"
    )
    ranks: int = Field(
        default=0,
        ge=0,
        description="processes that train one model together on this machine; 0 = one per GPU, or one on a CPU",
    )
    layout: Layout | Literal["auto"] = Field(
        default_factory=Layout, description='"auto" = the simplest one in which a step fits these machines'
    )
    engine: Annotated[Any, Plugin("groundup.parallel.engines")] = Field(
        default={"use": "native"}, validate_default=True, description="who trains on these ranks"
    )
    rank_timeout: float = Field(
        default=300.0, gt=0, description="seconds a rank may stand still before all are started again"
    )
    compile: Literal["auto", "on", "off"] = "auto"
    micro_batch: int = Field(default=0, ge=0, description="rows per micro-batch; 0 = chosen")
    activation_checkpointing: ActivationCheckpointing = Field(
        default="none",
        description="what a layer computes again instead of keeping it for its gradient; less memory, more time",
    )
    checkpoint_seconds: float = Field(
        default=600.0,
        gt=0,
        description="training work that may be lost, at most; states are saved oftener where cheap",
    )
    trackers: tuple[TrackerName, ...] = Field(
        default=(), description="also show metrics.jsonl in these: tensorboard, trackio, wandb"
    )
