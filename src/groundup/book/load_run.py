"""A run's artifacts -> manifests, metrics logs and samples for the chapters.

in:  artifacts by label, in pipeline order
out: a `LoadedRun`; an absent metric, log or file reads as absent and is no error
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from groundup.core.metrics import read_metrics
from groundup.core.stage import Artifact


@dataclass(frozen=True)
class LoadedArtifact:
    """One artifact of the run: its label in the blueprint, its manifest, its folder."""

    label: str
    manifest: dict[str, Any]
    path: Path

    @property
    def stage(self) -> str:
        """The stage's name, e.g. `curate`, independent of the step's label in the blueprint."""
        return str(self.manifest.get("stage", ""))

    @property
    def kind(self) -> str:
        """The artifact's kind, e.g. `policy`."""
        return str(self.manifest.get("kind", ""))

    @property
    def metrics(self) -> dict[str, Any]:
        """The stage's metrics."""
        return self.manifest.get("metrics") or {}

    @property
    def recipe(self) -> dict[str, Any]:
        """The stage's recipe."""
        return self.manifest.get("recipe") or {}

    @property
    def seconds(self) -> float:
        """Seconds the stage took."""
        return float(self.manifest.get("seconds") or 0)

    @cached_property
    def log(self) -> list[dict[str, Any]]:
        """The lines of its metrics.jsonl."""
        return read_metrics(self.path / "metrics.jsonl")

    def json(self, name: str) -> Any:
        """A JSON file of the artifact, or None when it is absent or damaged."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


class LoadedRun:
    """All artifacts of a run."""

    def __init__(self, artifacts: Mapping[str, Artifact]) -> None:
        self.artifacts = tuple(
            LoadedArtifact(label, item.manifest(), item.path) for label, item in artifacts.items()
        )

    def first(self, stage: str) -> LoadedArtifact | None:
        """The first artifact of that stage."""
        return next(self.all(stage), None)

    def last(self, stage: str) -> LoadedArtifact | None:
        """The last artifact of that stage."""
        artifacts = list(self.all(stage))
        return artifacts[-1] if artifacts else None

    def all(self, stage: str) -> Iterator[LoadedArtifact]:
        """Every artifact of that stage, in order."""
        return (artifact for artifact in self.artifacts if artifact.stage == stage)

    def align_steps(self) -> list[LoadedArtifact]:
        """The align steps, in the blueprint's order: reward models, and policies after the pretrained one."""
        models = [artifact for artifact in self.artifacts if artifact.kind in ("policy", "reward_model")]
        return [artifact for artifact in models if artifact.stage != "pretrain"]

    def metrics_by_stage(self) -> dict[str, dict[str, Any]]:
        """Metrics by stage, the last artifact's where a stage has several; of align steps by kind, merged in order."""
        aligned = self.align_steps()
        by_stage = {
            artifact.stage: artifact.metrics for artifact in self.artifacts if artifact not in aligned
        }
        for artifact in aligned:
            by_stage[artifact.kind] = by_stage.get(artifact.kind, {}) | artifact.metrics
        return by_stage

    def metrics(self, stage: str) -> dict[str, Any]:
        """The metrics of the stage's last artifact; empty when the stage is absent."""
        artifact = self.last(stage)
        return artifact.metrics if artifact else {}

    @property
    def seconds(self) -> float:
        """Seconds of all stages together."""
        return sum(artifact.seconds for artifact in self.artifacts)
