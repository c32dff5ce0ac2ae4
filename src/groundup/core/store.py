"""Artifacts on disk: published whole, checked before use, one builder at a time.

workspace/
  artifacts/<stage>-<12 hex>/manifest.json   what it is, from what, how it was made, a checksum of every file
  artifacts/<stage>-<12 hex>.part/           being built, or left by a crash for the next try to resume from
  runs/<name>.json                           the artifacts of the newest complete run
  runs/<name>/NN-<stage>                     links for people
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from groundup.core.atomic_io import fsync_dir, publish_dir, sha256_file, write_json
from groundup.core.errors import StoreError

MANIFEST = "manifest.json"
ArtifactKind = Literal[
    "raw_corpus",
    "corpus",
    "classifier",
    "tokenizer",
    "token_dataset",
    "policy",
    "reward_model",
    "scores",
    "book",
]
"""What an artifact contains. Commands and later stages dispatch on it, never on a stage's name."""


@dataclass(frozen=True)
class Artifact:
    """A published, immutable folder."""

    path: Path
    fingerprint: str
    stage: str
    kind: ArtifactKind

    def manifest(self) -> dict[str, Any]:
        """What `manifest.json` says. Raises StoreError when it is missing or unreadable."""
        manifest = read_manifest(self.path)
        if manifest is None:
            raise StoreError(f"{self.path} has no readable {MANIFEST}: run `groundup run` to build it")
        return manifest

    def metrics(self) -> dict[str, Any]:
        """The stage's figures."""
        return dict(self.manifest()["metrics"])


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an artifact, or None where there is no valid one."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and {"fingerprint", "kind"} <= manifest.keys() else None


def verify(folder: Path) -> str | None:
    """What is wrong with a published artifact, or None: every file is compared with its checksum."""
    manifest = read_manifest(folder)
    if manifest is None:
        return f"{MANIFEST} is missing or unreadable"
    for name, said in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != said["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, its manifest says {said['bytes']}"
        if sha256_file(path) != said["sha256"]:
            return f"{name} does not match its checksum"
    return None


class Store:
    """The folder `workspace/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifacts = root / "artifacts"
        self.runs = root / "runs"

    def artifact(self, stage: str, fingerprint: str, kind: ArtifactKind) -> Artifact:
        """The artifact of that name, whether it exists yet or not."""
        return Artifact(self.artifacts / f"{stage}-{fingerprint[:12]}", fingerprint, stage, kind)

    def publish(self, part: Path, artifact: Artifact, manifest: dict[str, Any]) -> None:
        """Write the manifest with every file's size and checksum, last, and make the folder appear."""
        files = sorted(path for path in part.rglob("*") if path.is_file() and path.name != MANIFEST)
        manifest["files"] = {
            str(path.relative_to(part)): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
            for path in files
        }
        for path in files:
            path.chmod(0o644)
        write_json(part / MANIFEST, manifest)
        publish_dir(part, artifact.path)

    def quarantine(self, artifact: Artifact) -> None:
        """Take a damaged artifact out of sight, then delete it."""
        aside = artifact.path.with_name(artifact.path.name + ".damaged")
        shutil.rmtree(aside, ignore_errors=True)
        artifact.path.rename(aside)
        fsync_dir(self.artifacts)
        shutil.rmtree(aside)

    @contextmanager
    def lock(self, artifact: Artifact) -> Iterator[None]:
        """Be the one builder of `artifact`. A dead holder's lock is free, since the kernel releases it.

        Raises StoreError naming the process that holds it.
        """
        self.artifacts.mkdir(parents=True, exist_ok=True)
        path = artifact.path.with_name(artifact.path.name + ".lock")
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A holder unlinks its lock when it leaves: what was opened before that locks nobody out.
                if not (path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())):
                    raise BlockingIOError
            except BlockingIOError:
                file.seek(0)
                raise StoreError(
                    f"{artifact.path.name} is being built by process {file.read().strip() or 'unknown'}. "
                    "Wait for it, or stop it, and run the same command again"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def record_run(self, name: str, stages: dict[str, Artifact], extra: dict[str, Any]) -> None:
        """Note the artifacts of a complete run, and link them in order for people to browse."""
        said = {"name": name, "stages": {label: item.path.name for label, item in stages.items()}} | extra
        links = self.runs / name
        links.mkdir(parents=True, exist_ok=True)
        for old in links.iterdir():
            if old.is_symlink():
                old.unlink()
        for number, (label, item) in enumerate(stages.items(), 1):
            target = os.path.relpath(item.path, links)
            (links / f"{number:02d}-{label}").symlink_to(target)
        write_json(self.runs / f"{name}.json", said)

    def run(self, name: str) -> dict[str, Artifact]:
        """The artifacts of the newest complete run, by label. Raises StoreError naming the runs there are."""
        path = self.runs / f"{name}.json"
        if not path.is_file():
            known = sorted(file.stem for file in self.runs.glob("*.json"))
            hint = f"Known runs: {', '.join(known)}" if known else "`groundup run` makes one"
            raise StoreError(f"there is no complete run `{name}` in {self.root}. {hint}")
        said = json.loads(path.read_text(encoding="utf-8"))
        found = {}
        for label, folder in said["stages"].items():
            manifest = read_manifest(self.artifacts / folder)
            if manifest is None:
                raise StoreError(
                    f"run `{name}`: {folder} is missing or damaged. `groundup run` builds it again"
                )
            found[label] = Artifact(
                self.artifacts / folder, manifest["fingerprint"], manifest["stage"], manifest["kind"]
            )
        return found
