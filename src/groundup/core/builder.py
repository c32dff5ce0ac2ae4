"""The builder: calls stages, skips what is up to date, publishes what they make.

in:  a stage, its recipe, and the artifacts it reads
out: an artifact whose folder is named by the fingerprint of exactly those

`groundup plan` and `groundup status` run the same pipeline with a builder that builds nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar

from groundup.core.atomic_io import explain_disk_errors
from groundup.core.environment import environment
from groundup.core.fingerprint import digest, fingerprint_payload
from groundup.core.progress import Reporter
from groundup.core.recipe import Recipe
from groundup.core.runtime import Runtime
from groundup.core.stage import Inputs, Metrics, Stage, StageContext, flat_inputs, open_context
from groundup.core.store import MANIFEST, Artifact, Store, read_manifest, verify
from groundup.core.trackers import require

P = ParamSpec("P")
R = TypeVar("R", bound=Recipe)
StageRunner = Callable[[Stage[...], Recipe, Runtime, StageContext, Inputs], Metrics]
"""Calls a stage with its recipe, runtime, context and inputs, here or in other processes."""


class PipelineBuilder(Protocol):
    """What a pipeline function is called with: makes, or only lists, one artifact per call."""

    artifacts: dict[str, Artifact]
    """Every artifact so far, by label."""

    def __call__(
        self,
        stage: Stage[Concatenate[R, Runtime, StageContext, P]],
        recipe: R,
        *inputs: P.args,
        **named: P.kwargs,
    ) -> Artifact:
        """The artifact that `stage` makes of the recipe and the inputs."""


@dataclass(frozen=True)
class StageReport:
    """The state of one stage: ready, built, or to build; `why` names the fields that differ."""

    label: str
    artifact: Artifact
    state: Literal["ready", "built", "to build"]
    why: str = ""


def run_inline(
    stage: Stage[...], recipe: Recipe, runtime: Runtime, context: StageContext, inputs: Inputs
) -> Metrics:
    """Call the stage in this process."""
    return stage(recipe, runtime, context, **inputs)


class StopAfterStage(Exception):
    """Raised by a builder once the stage `until` is built."""


@dataclass
class Builder:
    """Runs a pipeline function. With `build=False` it writes nothing and only reports."""

    store: Store
    runtime: Runtime
    reporter: Reporter = field(default_factory=Reporter)
    build: bool = True
    previous: dict[str, Artifact] = field(default_factory=dict)
    """The artifacts of the last complete run, which the reports compare with."""
    until: str = ""
    """The label after which to stop; "" = build everything."""
    runner: StageRunner = run_inline
    """How a stage is called."""
    total: int = 0
    """Number of stages, for the count in front of each line; 0 = unknown."""
    reports: list[StageReport] = field(default_factory=list)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    """Every artifact so far, by label."""

    def __call__(
        self,
        stage: Stage[Concatenate[R, Runtime, StageContext, P]],
        recipe: R,
        *inputs: P.args,
        **named: P.kwargs,
    ) -> Artifact:
        """The artifact that `stage` makes of the recipe and the inputs. Raises StopAfterStage after `until`."""
        label = stage.label(recipe)
        artifact = self._make(stage, label, recipe, stage.bind(*inputs, **named))
        self.artifacts[label] = artifact
        if self.until and label == self.until:
            raise StopAfterStage
        return artifact

    def _make(self, stage: Stage[...], label: str, recipe: Recipe, inputs: Inputs) -> Artifact:
        external = stage.external_digest(recipe) if stage.external_digest else None
        name = stage.name(recipe)
        fingerprints = {key: item.fingerprint for key, item in flat_inputs(inputs).items()}
        payload = fingerprint_payload(name, stage.version, recipe, fingerprints, external)
        artifact = self.store.artifact(name, digest(payload), stage.artifact_kind(recipe))
        problem = verify(artifact.path) if artifact.path.exists() else "not built"
        if problem is None:
            return self._report(label, artifact, "ready")
        why = _difference(payload, external, recipe, self.previous.get(label))
        if not self.build:
            return self._report(label, artifact, "to build", why)
        with explain_disk_errors(label, artifact.path.parent), self.store.lock(artifact):
            if artifact.path.exists():
                problem = verify(artifact.path)  # another process may have built it meanwhile
                if problem is None:
                    return self._report(label, artifact, "ready")
                self.reporter.info(f"{artifact.path.name} is damaged ({problem}): building it again")
                self.store.quarantine(artifact)
            self.reporter.info(f"{self._count()} {label}")
            manifest = {"stage": name, "kind": artifact.kind, "fingerprint": artifact.fingerprint,
                        "version": stage.version, "recipe": _full(recipe), "inputs": fingerprints,
                        "external_digest": digest(external), "runtime": self.runtime.model_dump()}  # fmt: skip
            self._run(stage, recipe, inputs, artifact, manifest)
        return self._report(label, artifact, "built", why)

    def _run(self, stage: Stage[...], recipe: Recipe, inputs: Inputs,
             artifact: Artifact, manifest: dict[str, Any]) -> None:  # fmt: skip
        part = artifact.path.with_name(artifact.path.name + ".part")
        (part / MANIFEST).unlink(missing_ok=True)
        require(self.runtime.trackers)
        context = open_context(part, self.reporter, self.runtime)
        started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        try:
            metrics = self.runner(stage, recipe, self.runtime, context, inputs)
        finally:
            context.close_log()
        context.close()
        manifest |= {
            "metrics": metrics,
            "environment": environment(),
            "started": started,
            "seconds": round(time.monotonic() - clock, 3),
        }
        self.store.publish(part, artifact, manifest)

    def _report(
        self, label: str, artifact: Artifact, state: Literal["ready", "built", "to build"], why: str = ""
    ) -> Artifact:
        if state == "ready" and self.build:
            self.reporter.info(f"{self._count()} {label}: up to date")
        self.reports.append(StageReport(label, artifact, state, why))
        return artifact

    def _count(self) -> str:
        number = len(self.reports) + 1
        return f"[{number}/{self.total}]" if self.total else f"[{number}]"


def _full(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json")


def _difference(payload: dict[str, Any], external: Any, recipe: Recipe, previous: Artifact | None) -> str:
    """The fields that differ from the artifact of the last complete run, in one line."""
    manifest = read_manifest(previous.path) if previous else None
    if manifest is None:
        return "never built"
    differences = []
    if manifest["version"] != payload["version"]:
        differences.append(f"version {manifest['version']} -> {payload['version']}")
    old, new = dict(flatten(manifest["recipe"])), dict(flatten(_full(recipe)))
    differences += [
        f"{key}: {_short(old.get(key, '(absent)'))} -> {_short(new.get(key, '(absent)'))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, "(absent)") != new.get(key, "(absent)")
    ]
    changed = [key for key, value in payload["inputs"].items() if manifest["inputs"].get(key) != value]
    differences += [f"input {key} changes" for key in changed]
    if manifest.get("external_digest") != digest(external):
        differences.append("the source files changed")
    return "; ".join(differences) or "missing or damaged"


def _short(value: Any) -> str:
    """The repr of a value, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def flatten(value: Any, at: str = "") -> list[tuple[str, Any]]:
    """A nested value as dotted keys, e.g. `optimizer.lr`; lists by index."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return [(at, value)]
    return [pair for key, inner in items for pair in flatten(inner, f"{at}.{key}" if at else str(key))]
