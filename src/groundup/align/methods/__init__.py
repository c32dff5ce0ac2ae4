"""Slot: how weights are made to behave better. One file per method; each derives from `Method`.

A method prepares a session: a model, the batches of every step, and the loss of a batch. The one training loop
does the rest. For PPO the batches happen to be sampled from the model itself.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import Field
from torch import Tensor, nn

from groundup.core.recipe import Recipe
from groundup.core.registry import Plugin
from groundup.core.runtime import Runtime
from groundup.core.stage import ArtifactKind, Metrics, StageContext
from groundup.evaluate.tasks import Example
from groundup.parallel.hardware import Precision
from groundup.tokens.tokenizer import Tokenizer
from groundup.train.optimizers import Optimizer
from groundup.train.optimizers.adamw import AdamW
from groundup.train.schedules import ScheduleName


@dataclass(frozen=True)
class MethodContext:
    """What every method gets: where to work, what to teach, and the artifacts it reads by name."""

    runtime: Runtime
    out: StageContext
    tokenizer: Tokenizer
    train: Sequence[Example]
    held_out: Sequence[Example]
    reads: dict[str, Path]


class Session(Protocol):
    """One training, prepared. `batches(step)` is a function of the model's weights and the step alone."""

    label: str
    steps: int
    boundary: int
    """training may be interrupted and taken up again after a multiple of this many steps"""
    tokens_per_step: int
    """0 where it differs from step to step"""
    depends_on_weights: bool
    """whether `batches` samples from the model: then none is made ahead, and figures may jump"""
    d_model: int

    @property
    def model(self) -> nn.Module:
        """What is trained."""

    def batches(self, step: int) -> Sequence[Any] | None:
        """The micro-batches of a step, or None to end early."""

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Any]]:
        """A micro-batch's share of the step's loss, and figures to log."""

    def finish(self) -> Metrics:
        """Save what was trained, and measure it."""


class Method(Recipe):
    """Base of the parts in this folder: the knobs that every method has.

    inputs: the artifacts that it reads, role -> kind. output: the kind of artifact that it makes.
    """

    inputs: ClassVar[Mapping[str, ArtifactKind]] = {"start": "policy"}
    output: ClassVar[ArtifactKind] = "policy"

    optimizer: Annotated[Optimizer, Plugin("groundup.train.optimizers")] = AdamW(lr=1e-4)
    schedule: ScheduleName = Field(default="linear", description="how the rate falls")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the steps in which the rate rises")
    grad_clip: float = Field(default=1.0, gt=0, description="largest norm of a step's gradient")
    precision: Precision = Field(default="auto", description="dtype of the arithmetic")
    seed: int = Field(default=0, ge=0)

    @abstractmethod
    def prepare(self, given: MethodContext) -> Session:
        """Load the models, make the data. Raises DataError when there is nothing to learn from."""
