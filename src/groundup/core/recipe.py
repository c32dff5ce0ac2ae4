"""A recipe says what is made; a site says where and how the work runs.

They are different types, and only a recipe can reach an artifact's fingerprint.
"""

import difflib
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from groundup.core.trackers import TrackerName

Recompute = Literal["none", "selective", "full"]


class Strict(BaseModel):
    """Frozen; an unknown key is refused with the nearest known one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        return refuse_unknown_keys(cls, value)


class Recipe(Strict):
    """Base of every recipe and every part: frozen, no unknown keys, every field has a default."""

    model_config = ConfigDict(validate_default=True)

    version: ClassVar[int] = 1
    """Raised by hand when the meaning changes, so that old artifacts are built anew."""
    not_identity: ClassVar[frozenset[str]] = frozenset()
    """Fields that say where something lies, not what it is; never part of a fingerprint."""


class Layout(Strict):
    """How ranks share a model. What replicate x tensor leave of them shards weights, experts and positions."""

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


class Site(Strict):
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
    layout: Layout = Field(default_factory=Layout)
    rank_timeout: float = Field(
        default=300.0, gt=0, description="seconds a rank may stand still before all are started again"
    )
    compile: Literal["auto", "on", "off"] = "auto"
    micro_batch: int = Field(default=0, ge=0, description="rows per micro-batch; 0 = chosen")
    recompute: Recompute = Field(
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


def refuse_unknown_keys(kind: type[BaseModel], value: Any) -> Any:
    """Pass `value` on, or say which key is unknown and which known one is nearest."""
    if not isinstance(value, dict):
        return value
    known = list(kind.model_fields)
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"Did you mean `{near[0]}`?" if near else f"Known keys: {', '.join(known) or 'none'}"
            raise PydanticCustomError("unknown_key", "unknown key. {hint}", {"key": str(key), "hint": hint})
    return value
