"""A run's artifacts -> what the chapters read: manifests, logs and samples, absent things as absent.

in:  artifacts by label, in the order of the river
out: a `Story`; reading it never fails for want of a figure
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from groundup.core.metrics import read_metrics
from groundup.core.stage import Artifact

ALIGN_STAGES = ("sft", "reward", "ppo")


@dataclass(frozen=True)
class LoadedArtifact:
    """One stage of the run: its label in the blueprint, its manifest, its folder."""

    label: str
    manifest: dict[str, Any]
    path: Path

    @property
    def stage(self) -> str:
        """The stage's name: `sft`, whatever the blueprint calls the step."""
        return str(self.manifest.get("stage", ""))

    @property
    def metrics(self) -> dict[str, Any]:
        """Its figures."""
        return self.manifest.get("metrics") or {}

    @property
    def recipe(self) -> dict[str, Any]:
        """What it was told to make."""
        return self.manifest.get("recipe") or {}

    @property
    def seconds(self) -> float:
        """How long it took."""
        return float(self.manifest.get("seconds") or 0)

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """The lines of its metrics.jsonl."""
        return read_metrics(self.path / "metrics.jsonl")

    def json(self, name: str) -> Any:
        """A JSON file of the artifact, or None where there is none."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


class LoadedRun:
    """All stages of a run."""

    def __init__(self, artifacts: Mapping[str, Artifact]) -> None:
        self.made = tuple(
            LoadedArtifact(label, item.manifest(), item.path) for label, item in artifacts.items()
        )

    def first(self, stage: str) -> LoadedArtifact | None:
        """The first artifact of that stage."""
        return next(self.all(stage), None)

    def last(self, stage: str) -> LoadedArtifact | None:
        """The last artifact of that stage."""
        found = list(self.all(stage))
        return found[-1] if found else None

    def all(self, stage: str) -> Iterator[LoadedArtifact]:
        """Every artifact of that stage, in order."""
        return (made for made in self.made if made.stage == stage)

    def align_steps(self) -> list[LoadedArtifact]:
        """The steps after pretraining, in the blueprint's order."""
        return [made for made in self.made if made.stage in ALIGN_STAGES]

    def figures(self) -> dict[str, dict[str, Any]]:
        """The metrics by stage; of several artifacts of one stage, the last one's."""
        return {made.stage: made.metrics for made in self.made}

    def metrics(self, stage: str) -> dict[str, Any]:
        """The last artifact's metrics of that stage, or none."""
        made = self.last(stage)
        return made.metrics if made else {}

    @property
    def seconds(self) -> float:
        """What all stages took together."""
        return sum(made.seconds for made in self.made)
