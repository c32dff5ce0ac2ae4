"""Artifacts for tests, made of whatever files are in a folder."""

from pathlib import Path
from typing import Any

from groundup.core.fingerprint import digest
from groundup.core.stage import Artifact, ArtifactKind
from groundup.core.store import Store


def published(
    folder: Path, stage: str, kind: ArtifactKind, metrics: dict[str, Any] | None = None
) -> Artifact:
    """The files of `folder` as an artifact in the same place, with a manifest that verifies."""
    artifact = Artifact(folder, digest([stage, str(folder)]), stage, kind)
    part = folder.rename(folder.with_name(folder.name + ".part"))
    manifest = {"stage": stage, "kind": kind, "fingerprint": artifact.fingerprint, "metrics": metrics or {}}
    Store(folder.parent).publish(part, artifact, manifest)
    return artifact
