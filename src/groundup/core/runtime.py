"""Runtime: where and how the work runs. Never part of an artifact's fingerprint.

in:  the blueprint's section `runtime`
out: Runtime, which every stage receives with its recipe
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from groundup.core.recipe import Strict
from groundup.core.registry import Plugin
from groundup.core.trackers import TrackerName

ActivationCheckpointing = Literal["none", "selective", "full"]
Schedule = Literal["1f1b", "interleaved", "zero_bubble"]


class Layout(Strict):
    """How ranks share a model. `layout = "auto"` chooses the simplest one whose step fits the memory.

    The ranks that pipeline x replicate x tensor don't use shard weights, experts and positions.
    """

    replicate: int = Field(
        default=1,
        ge=1,
        description="number of model replicas, each sharded inside its group of ranks (hybrid sharding)",
    )
    tensor: int = Field(default=1, ge=1, description="tensor parallel size: ranks that split every matrix")
    expert: int = Field(
        default=1,
        ge=1,
        description="expert parallel size: ranks, among those that shard, that split the experts",
    )
    context: int = Field(
        default=1, ge=1, description="context parallel size: ranks that split the positions of a sequence"
    )
    pipeline: int = Field(
        default=1, ge=1, description="pipeline parallel size: ranks that hold different layers"
    )
    schedule: Schedule = Field(
        default="1f1b",
        description="pipeline schedule: 1f1b, interleaved (two stages per rank, smaller bubble) or zero_bubble "
        "(interleaved, weight gradients deferred; not compiled)",
    )

    def without_effect(self) -> dict[str, str]:
        """See `Strict`."""
        return {} if self.pipeline > 1 else {"schedule": "pipeline = 1"}


class Runtime(Strict):
    """Where and how the work runs. Never part of an artifact's fingerprint."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto = cuda where there is a GPU, else cpu"
    )
    threads: int = Field(default=0, ge=0, description="CPU threads; 0 = all cores")
    workers: int = Field(default=0, ge=0, description="processes for ingest and curate; 0 = one per core")
    ray: str = Field(
        default="", description='address of a Ray cluster for ingest and curate ("host:port" or "auto")'
    )
    ranks: int = Field(
        default=0,
        ge=0,
        description="processes on this machine that train one model; 0 = one per GPU, or one on a CPU",
    )
    layout: Layout | Literal["auto"] = Field(
        default_factory=Layout,
        description='how ranks share the model; "auto" = the simplest layout whose step fits the memory',
    )
    engine: Annotated[Any, Plugin("groundup.parallel.engines")] = Field(
        default={"use": "native"},
        validate_default=True,
        description="training backend: native (FSDP2), deepspeed or megatron",
    )
    rank_timeout: float = Field(
        default=300.0, gt=0, description="seconds without progress after which hanging ranks are restarted"
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto", description="torch.compile: auto = where a compiler is installed"
    )
    micro_batch: int = Field(
        default=0,
        ge=0,
        description="sequences per micro-batch; 0 = as many as keep the device busy and fit it",
    )
    activation_checkpointing: ActivationCheckpointing = Field(
        default="none", description="activation checkpointing: none, selective or full"
    )
    checkpoint_seconds: float = Field(
        default=600.0,
        gt=0,
        description="most seconds of training between two resume states; more frequent where saving is cheap",
    )
    trackers: tuple[TrackerName, ...] = Field(
        default=(),
        description="experiment trackers that also receive metrics.jsonl: tensorboard, trackio, wandb",
    )

    def without_effect(self) -> dict[str, str]:
        """See `Strict`."""
        unused = {"workers": "the Ray cluster has its own workers"} if self.ray else {}
        return unused | {"rank_timeout": "there is one rank"} if self.ranks == 1 else unused
