"""The base of all alignment methods, and what a method prepares: a training session.

in:  MethodContext: where to write, the alignment data, the models that the method reads
out: Session: a TrainSpec for the training loop, and the result's files and metrics afterwards
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import Field

from groundup.core.errors import DataError, GroundupError
from groundup.core.recipe import Recipe
from groundup.core.registry import Plugin, plugin_name
from groundup.core.runtime import Runtime
from groundup.core.stage import ArtifactKind, Metrics, StageContext
from groundup.evaluate.alignment_data import AlignmentData, RecordKind
from groundup.parallel.hardware import Precision
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.loop import TrainSpec
from groundup.train.optimizers import Optimizer
from groundup.train.optimizers.adamw import AdamW
from groundup.train.schedules import ScheduleName

LONGEST_ROW = 2048
"""Longest packed sequence unless `seq_len` is set: an imported model's context can be 40,960 tokens."""


@dataclass(frozen=True)
class MethodContext:
    """The inputs of a method."""

    runtime: Runtime
    stage: StageContext
    tokenizer: Tokenizer
    data: AlignmentData
    inputs: Mapping[str, Path]
    """role -> folder of the model that the method reads in this role"""

    def both_splits(self, kind: RecordKind) -> tuple[list[Any], list[Any]]:
        """(training, held-out) records of a kind. Raises DataError where one of them is empty."""
        train, held_out = (getattr(self.data, kind)(split) for split in ("train", "held_out"))
        if not train or not held_out:
            raise DataError(
                f"the alignment data has {len(train)} {kind} to train on and {len(held_out)} held out; training and "
                "evaluation need at least one each, of different prompts. Add data with [[data]], or text with "
                "[[ingest.sources]] and a task with [[tasks]]"
            )
        return train, held_out


class Session(Protocol):
    """A prepared training."""

    def train_spec(self) -> TrainSpec:
        """Everything that the training loop needs."""

    def finish(self) -> Metrics:
        """Save the trained model and measure it. With several ranks, all call this; rank 0 writes."""


class Method(Recipe):
    """Base of the methods, with the settings that all of them have.

    inputs: the models that it reads, role -> kind of artifact. learns_from: the kinds of records that it can learn
    from; a step needs one of them. output: the kind of artifact that it makes.
    engines: the training backends that can run it. layout_axes: the axes of `runtime.layout` that it supports beside
    `replicate` and the sharding of what the axes leave. headline: names of the metrics that `groundup show` lists.
    """

    inputs: ClassVar[Mapping[str, ArtifactKind]] = {"start": "policy"}
    learns_from: ClassVar[frozenset[RecordKind]] = frozenset()
    output: ClassVar[ArtifactKind] = "policy"
    engines: ClassVar[frozenset[str]] = frozenset({"native"})
    layout_axes: ClassVar[frozenset[str]] = frozenset({"tensor"})
    headline: ClassVar[tuple[str, ...]] = ()

    optimizer: Annotated[Optimizer, Plugin("groundup.train.optimizers")] = AdamW(lr=1e-4)
    schedule: ScheduleName = Field(default="linear", description="learning-rate schedule")
    warmup_fraction: float = Field(
        default=0.05, ge=0, lt=1, description="fraction of the steps with a rising learning rate"
    )
    seq_len: int = Field(
        default=0,
        ge=0,
        description=f"tokens per packed sequence; 0 = the model's context, at most {LONGEST_ROW}. Longer conversations "
        "are cut or left out",
    )
    grad_clip: float = Field(default=1.0, gt=0, description="maximum norm of a step's gradient")
    precision: Precision = Field(
        default="auto", description="dtype of the arithmetic: auto, fp32, bf16 or fp8"
    )
    seed: int = Field(default=0, ge=0)

    def row_tokens(self, context: int) -> int:
        """Tokens per packed sequence for a model of this context. Raises GroundupError for more than the context."""
        if self.seq_len > context:
            raise GroundupError(
                f"{plugin_name(self)}: seq_len = {self.seq_len} is longer than the model's context of {context} "
                f"tokens. Set seq_len to at most {context}, or 0 for the default"
            )
        return self.seq_len or min(context, LONGEST_ROW)

    @abstractmethod
    def prepare(self, context: MethodContext) -> Session:
        """Load the models and make the training data. Raises DataError where there is none."""
