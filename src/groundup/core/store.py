"""Artifacts on disk: published whole, verified before use, built by one process at a time.

workspace/
  artifacts/<stage>-<12 hex>/manifest.json   kind, recipe, inputs, environment, metrics, size and sha256 of every file
  artifacts/<stage>-<12 hex>.part/           a build in progress, or an interrupted one that the next run resumes
  artifacts/<stage>-<12 hex>.lock            held by the process that builds the artifact
  runs/<name>.json                           the artifacts of the newest complete run
  runs/<name>/NN-<stage>                     links to them
  digests.sqlite                             kept content digests of source files and artifacts (core/digests.py)
  plans/<digest>.json                        kept plans of blueprints (core/kept_plan.py)
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, Literal

from groundup.core.atomic_io import first_mismatch, publish_dir, remove, sha256_file, write_json
from groundup.core.digests import DigestCache
from groundup.core.errors import StoreError
from groundup.core.fingerprint import digest

MANIFEST = "manifest.json"
PARTIAL = "partial.json"
"""The record of a run that stopped early, in `runs/<name>/`."""
PART, LOCK = ".part", ".lock"
ArtifactKind = Literal[
    "raw_corpus",
    "corpus",
    "classifier",
    "tokenizer",
    "token_dataset",
    "alignment_data",
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
        """The content of `manifest.json`. Raises StoreError when it is missing or unreadable."""
        manifest = read_manifest(self.path)
        if manifest is None:
            raise StoreError(f"{self.path} has no readable {MANIFEST}: run `groundup run` to build it")
        return manifest

    def metrics(self) -> dict[str, Any]:
        """The stage's metrics."""
        return dict(self.manifest()["metrics"])

    def digest(self, record: bool = False) -> str:
        """Digest of its content; with `record`, of its whole manifest: also times, metrics and the other files."""
        manifest = self.manifest()
        return digest(manifest) if record else str(manifest["content"])


@dataclass(frozen=True)
class ChosenModel:
    """The checkpoint that a command names. name: for people; samples: the graded answers of its run, if there are.

    passages: of a run whose model is fine-tuned with passages in the prompt, their file; passages_per_prompt: how many
    of them.
    """

    folder: Path
    name: str
    samples: Path | None = None
    passages: Path | None = None
    passages_per_prompt: int = 0


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an artifact, or None where there is no valid one. Raises OSError where it can't be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and {"fingerprint", "kind"} <= manifest.keys() else None


def content_digest(files: dict[str, dict[str, Any]], patterns: Sequence[str]) -> str:
    """SHA-256 over names and checksums of the files that match one of `patterns` (`documents/*`, `*.npy`).

    files: size and sha256 by relative path, as a manifest lists them.
    """
    content = {
        name: entry["sha256"]
        for name, entry in files.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    return digest(content)


CONTENT: dict[ArtifactKind, tuple[str, ...]] = {
    "raw_corpus": ("documents/*",),
    "corpus": ("documents/*",),
    "tokenizer": ("tokenizer.json", "tokenizer_config.json"),
    "token_dataset": ("*.npy", "*_spans.parquet"),
    "alignment_data": ("*.jsonl.zst",),
    "policy": ("*config.json", "*.safetensors*", "tokenizer.json"),
    "reward_model": ("*config.json", "*.safetensors*", "tokenizer.json", "reward.json"),
}
"""By kind, the files that later stages compute with. Rejects logs, reports, samples and metrics are not among them.

A kind that isn't listed has only content.
"""


def verify(folder: Path, digests: DigestCache | None = None) -> str | None:
    """The first difference between a published artifact and its manifest, or None.

    digests: kept digests, used for files that have not changed since they were hashed; None = hash every file.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return f"{MANIFEST} is missing or unreadable"
    return first_mismatch(folder, manifest["files"], digests.sha256 if digests is not None else sha256_file)


class Store:
    """The folder `workspace/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifacts = root / "artifacts"
        self.runs = root / "runs"

    def artifact(self, stage: str, fingerprint: str, kind: ArtifactKind) -> Artifact:
        """The artifact with this fingerprint, which need not exist yet."""
        return Artifact(self.artifacts / f"{stage}-{fingerprint[:12]}", fingerprint, stage, kind)

    def digests(self, trust: bool = True) -> DigestCache:
        """The workspace's kept digests. trust: False = recompute them all."""
        return DigestCache(self.root / "digests.sqlite", trust)

    def publish(self, part: Path, artifact: Artifact, manifest: dict[str, Any]) -> None:
        """Write the manifest last, with size and sha256 of every file, and rename the folder to its final name."""
        files = sorted(path for path in part.rglob("*") if path.is_file() and path.name != MANIFEST)
        entries: dict[str, dict[str, Any]] = {}
        hashed = []
        for path in files:
            name = str(path.relative_to(part))
            path.chmod(0o644)
            status, started = path.stat(), time.time_ns()
            sha256 = sha256_file(path)
            entries[name] = {"bytes": status.st_size, "sha256": sha256}
            hashed.append((artifact.path / name, status, started, sha256))
        manifest |= {"files": entries, "content": content_digest(entries, CONTENT.get(artifact.kind, ("*",)))}
        write_json(part / MANIFEST, manifest)
        publish_dir(part, artifact.path)
        digests = self.digests()
        for item in hashed:
            digests.keep_file(*item)
        digests.flush()

    def quarantine(self, artifact: Artifact) -> None:
        """Rename a damaged artifact, so that nothing reads it any more, and delete it."""
        remove(artifact.path)

    @contextmanager
    def lock(self, artifact: Artifact) -> Iterator[None]:
        """Hold the right to build `artifact`. The kernel releases the lock of a process that dies.

        Raises StoreError naming the process that holds it.
        """
        self.artifacts.mkdir(parents=True, exist_ok=True)
        path = artifact.path.with_name(artifact.path.name + LOCK)
        with path.open("a+") as file:
            try:
                _lock_exclusively(file)
                # A holder unlinks its lock file at the end: a file that was opened before that locks nothing.
                if not (path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())):
                    raise BlockingIOError
            except BlockingIOError:
                raise StoreError(
                    f"{artifact.path.name} is being built by process {_holder(file)}. "
                    "Wait for it, or stop it, and run the same command again"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def artifacts_being_built(self) -> dict[str, str]:
        """Names of the artifacts whose lock is held, and the processes that hold them."""
        building = {}
        for path in sorted(self.artifacts.glob(f"*{LOCK}")):
            try:
                with path.open() as file:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                with path.open() as file:
                    building[path.name.removesuffix(LOCK)] = _holder(file)
            except FileNotFoundError:  # released meanwhile
                continue
        return building

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep `exclusive` out: held by a run from its first stage until its record is written."""
        with self._workspace_lock(fcntl.LOCK_SH):
            yield

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep runs from starting while files are deleted. Raises StoreError while one is in progress."""
        try:
            with self._workspace_lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
                yield
        except BlockingIOError:
            raise StoreError(
                f"a run is in progress in {self.root}, and its artifacts are in no record yet. Nothing was deleted. "
                "Run the same command again when it has finished"
            ) from None

    @contextmanager
    def _workspace_lock(self, operation: int) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / LOCK).open("a") as file:
            fcntl.flock(file, operation)
            yield

    def record_run(self, name: str, stages: dict[str, Artifact], extra: dict[str, Any]) -> None:
        """Write the record of a complete run, and links to its artifacts in their order."""
        self._link(name, stages)
        write_json(self.runs / f"{name}.json", _record(name, stages, extra))
        self._partial_record(name).unlink(missing_ok=True)

    def record_partial_run(self, name: str, stages: dict[str, Artifact], until: str) -> None:
        """Write the record of a run that stopped after `until`. The record of a complete run stays as it is."""
        (self.runs / name).mkdir(parents=True, exist_ok=True)
        if not self._record(name).is_file():
            self._link(name, stages)
        write_json(self._partial_record(name), _record(name, stages, {"until": until}))

    def run(self, name: str, newest: bool = False) -> dict[str, Artifact]:
        """The artifacts of a complete run by label; of a partial run where there is no complete one.

        newest: of the partial run also where it is newer. Raises StoreError listing the runs that exist.
        """
        records = [path for path in (self._record(name), self._partial_record(name)) if path.is_file()]
        if not records:
            known = ", ".join(self.run_names())
            hint = f"Known runs: {known}" if known else "`groundup run` makes one"
            raise StoreError(f"there is no run `{name}` in {self.root}. {hint}")
        record = max(records, key=_modified) if newest else records[0]
        artifacts = {}
        for label, folder in _stages_of(record).items():
            manifest = read_manifest(self.artifacts / folder)
            if manifest is None:
                raise StoreError(
                    f"run `{name}`: {folder} is missing or damaged. `groundup run` builds it again"
                )
            artifacts[label] = Artifact(
                self.artifacts / folder, manifest["fingerprint"], manifest["stage"], manifest["kind"]
            )
        return artifacts

    def run_names(self) -> list[str]:
        """The names of all runs, those of the newest records last."""
        records = sorted(self._records(), key=_modified)
        return list(dict.fromkeys(self._run_name(path) for path in records))

    def previous_manifests(self, name: str) -> dict[str, dict[str, Any]]:
        """The manifests of the run by label, less those that are missing or damaged."""
        records = [path for path in (self._record(name), self._partial_record(name)) if path.is_file()]
        try:
            stages = _stages_of(records[0]) if records else {}
        except StoreError:
            return {}
        manifests = {label: read_manifest(self.artifacts / folder) for label, folder in stages.items()}
        return {label: manifest for label, manifest in manifests.items() if manifest is not None}

    def referenced_artifacts(self) -> set[str]:
        """Names of the artifacts in all run records. Raises StoreError for a record that can't be read."""
        return {name for path in self._records() for name in _stages_of(path).values()}

    def _link(self, name: str, stages: dict[str, Artifact]) -> None:
        links = self.runs / name
        links.mkdir(parents=True, exist_ok=True)
        for old in links.iterdir():
            if old.is_symlink():
                old.unlink()
        for number, (label, item) in enumerate(stages.items(), 1):
            target = os.path.relpath(item.path, links)
            (links / f"{number:02d}-{label}").symlink_to(target)

    def _record(self, name: str) -> Path:
        return self.runs / f"{name}.json"

    def _partial_record(self, name: str) -> Path:
        return self.runs / name / PARTIAL

    def _records(self) -> list[Path]:
        if self.runs.is_dir():
            os.scandir(
                self.runs
            ).close()  # raises OSError for a folder that can't be listed; glob finds nothing there
        return [*self.runs.glob("*.json"), *self.runs.glob(f"*/{PARTIAL}")]

    def _run_name(self, record: Path) -> str:
        return record.parent.name if record.name == PARTIAL and record.parent != self.runs else record.stem


def _record(name: str, stages: dict[str, Artifact], extra: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "stages": {label: item.path.name for label, item in stages.items()}} | extra


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns


def _stages_of(record: Path) -> dict[str, str]:
    """Artifact names by label. Raises StoreError where the record is damaged."""
    try:
        stages: dict[str, str] = json.loads(record.read_text(encoding="utf-8"))["stages"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{record} is not a readable run record ({error}). Delete it, and `groundup run` writes it again"
        ) from None
    return stages


def _lock_exclusively(file: IO[str]) -> None:
    """Raises BlockingIOError where another process holds the lock for longer than `artifacts_being_built` does."""
    for wait in (0.05, 0.05, None):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if wait is None:
                raise
            time.sleep(wait)


def _holder(lock: IO[str]) -> str:
    """The process whose number is written in a lock file."""
    lock.seek(0)
    return lock.read().strip() or "unknown"
