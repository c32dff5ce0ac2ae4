"""The builder: calls stages, skips artifacts that are up to date, publishes the others.

in:  a stage, its recipe, and the artifacts it reads
out: an artifact whose folder is named by the fingerprint of the recipe and the content of what was read

An artifact that nothing reads is compared with its manifest by kept digests; one that a stage is about to read is
hashed in full. `status.py` reports on the same pipeline without building.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from groundup.core.atomic_io import remove
from groundup.core.digests import DigestCache
from groundup.core.environment import environment
from groundup.core.errors import DamagedInputError, InputChangedError
from groundup.core.fingerprint import canonical_json, digest, fingerprint_payload
from groundup.core.os_errors import explain_os_errors
from groundup.core.progress import Reporter
from groundup.core.recipe import Recipe
from groundup.core.runtime import Runtime
from groundup.core.stage import Inputs, Metrics, Stage, StageContext, flat_inputs, open_context
from groundup.core.status import NOT_BUILT, PlannedStage, StageReport, difference, plan_stage
from groundup.core.store import MANIFEST, PART, Artifact, Store, verify
from groundup.core.trackers import Run, require

ATTEMPTS = 3
"""How often a stage is run whose external files change while it reads them."""
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


def run_inline(
    stage: Stage[...], recipe: Recipe, runtime: Runtime, context: StageContext, inputs: Inputs
) -> Metrics:
    """Call the stage in this process."""
    return stage(recipe, runtime, context, **inputs)


class StopAfterStage(Exception):
    """Raised by a builder once the stage `until` is built."""


@dataclass
class Builder:
    """Runs a pipeline function: makes every artifact that is not up to date."""

    store: Store
    runtime: Runtime
    reporter: Reporter = field(default_factory=Reporter)
    previous: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The manifests of the last complete run by label, which the reports compare with."""
    until: str = ""
    """The label after which to stop; "" = build everything."""
    runner: StageRunner = run_inline
    """How a stage is called."""
    total: int = 0
    """Number of stages, for the count in front of each line; 0 = unknown."""
    run_name: str = ""
    """Name of the run, for the trackers."""
    before: Callable[[str, Mapping[str, Artifact]], None] = lambda label, artifacts: None
    """Called before each stage with its label and the artifacts so far; may raise to stop the run."""
    reports: list[StageReport] = field(default_factory=list)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    """Every artifact so far, by label."""
    verified: set[Path] = field(default_factory=set)
    """Artifacts whose every file was hashed by this builder."""

    def __call__(
        self,
        stage: Stage[Concatenate[R, Runtime, StageContext, P]],
        recipe: R,
        *inputs: P.args,
        **named: P.kwargs,
    ) -> Artifact:
        """The artifact that `stage` makes of the recipe and the inputs.

        Raises StopAfterStage after `until`, DamagedInputError after deleting an input that doesn't match its
        checksums, and InputChangedError where external files change whenever they are read.
        """
        bound = stage.bind(*inputs, **named)
        planned = plan_stage(stage, recipe, {key: item.path.name for key, item in flat_inputs(bound).items()})
        self.before(planned.label, self.artifacts)
        report = self._made(stage, planned, recipe, bound)
        assert report.artifact is not None
        self.reports.append(report)
        self.artifacts[report.label] = report.artifact
        if self.until and report.label == self.until:
            raise StopAfterStage
        return report.artifact

    def fingerprint(self, stage: Stage[...], recipe: Recipe, *inputs: Any, **named: Any) -> str:
        """The fingerprint of what the same call would make."""
        bound = stage.bind(*inputs, **named)
        return self._artifact(plan_stage(stage, recipe, {}), stage, recipe, bound, self.store.digests())[
            0
        ].fingerprint

    def _made(self, stage: Stage[...], planned: PlannedStage, recipe: Recipe, inputs: Inputs) -> StageReport:
        """Make the artifact; once more where an external file changed between its fingerprint and its reading."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                # A second attempt trusts no kept digest: one of them may be wrong.
                return self._make(stage, planned, recipe, inputs, self.store.digests(trust=attempt == 1))
            except InputChangedError as error:
                if attempt == ATTEMPTS:
                    raise
                self.reporter.info(f"{planned.label}: {error}. The stage is run again")
        raise AssertionError("unreachable")

    def _make(
        self, stage: Stage[...], planned: PlannedStage, recipe: Recipe, inputs: Inputs, digests: DigestCache
    ) -> StageReport:
        label = planned.label
        artifact, payload = self._artifact(planned, stage, recipe, inputs, digests)
        if self._usable(artifact, digests) is None:
            return self._up_to_date(label, artifact)
        why = difference(planned, payload, self.previous.get(label), NOT_BUILT)
        self._verify_inputs(inputs)
        with explain_os_errors(label, artifact.path.parent), self.store.lock(artifact):
            if artifact.path.exists():
                problem = self._usable(artifact, digests)  # another process may have built it meanwhile
                if problem is None:
                    return self._up_to_date(label, artifact)
                self.reporter.info(f"{artifact.path.name} is damaged ({problem}): building it again")
                self.store.quarantine(artifact)
            self.reporter.info(f"{self._count()} {label}")
            manifest = {"stage": planned.name, "kind": artifact.kind, "fingerprint": artifact.fingerprint,
                        "version": planned.version, "recipe": planned.recipe, "inputs": payload["inputs"],
                        "built_from": planned.inputs, "external_digest": digest(payload["external"]),
                        "headline": stage.headline(recipe), "runtime": self.runtime.model_dump()}  # fmt: skip
            self._run(stage, recipe, inputs, artifact, manifest, digests)
        self.verified.add(artifact.path)
        return StageReport(label, artifact, "built", why)

    def _artifact(
        self, planned: PlannedStage, stage: Stage[...], recipe: Recipe, inputs: Inputs, digests: DigestCache
    ) -> tuple[Artifact, dict[str, Any]]:
        """The artifact, which need not exist, and the payload of its fingerprint."""
        external = stage.external_digest(recipe, digests) if stage.external_digest else None
        digests.flush()
        contents = {key: item.digest(stage.reads_records) for key, item in flat_inputs(inputs).items()}
        payload = fingerprint_payload(planned.name, planned.version, planned.identity, contents, external)
        return self.store.artifact(planned.name, digest(payload), planned.kind), payload

    def _usable(self, artifact: Artifact, digests: DigestCache) -> str | None:
        """Why the artifact can't be used, or None."""
        problem = verify(artifact.path, digests) if artifact.path.exists() else NOT_BUILT
        digests.flush()
        return problem

    def _verify_inputs(self, inputs: Inputs) -> None:
        """Hash every file that is about to be read, whatever is kept."""
        for item in flat_inputs(inputs).values():
            if item.path in self.verified:
                continue
            problem = verify(item.path)
            if problem is not None:
                self.store.quarantine(item)
                raise DamagedInputError(
                    f"{item.path.name} was damaged ({problem}) and is deleted: it must be built again"
                )
            self.verified.add(item.path)

    def _run(self, stage: Stage[...], recipe: Recipe, inputs: Inputs,
             artifact: Artifact, manifest: dict[str, Any], digests: DigestCache) -> None:  # fmt: skip
        part = artifact.path.with_name(artifact.path.name + PART)
        (part / MANIFEST).unlink(missing_ok=True)
        require(self.runtime.trackers)
        context = open_context(part, self.reporter, self.runtime)
        if self.runtime.trackers:
            config = {key: manifest[key] for key in ("recipe", "runtime", "built_from")}
            Run(artifact.path.name, part, self.run_name, stage.label(recipe), config).save(context.temporary)
        started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        try:
            metrics = self.runner(stage, recipe, self.runtime, context, inputs)
        finally:
            context.close_log()
        if stage.external_digest is not None:
            # The files as they are now, and as the stage read them: they may have changed and changed back.
            observed = (stage.external_digest(recipe, digests), context.external_read)
            expected = manifest["external_digest"]
            if any(item is not None and digest(canonical_json(item)) != expected for item in observed):
                remove(part)
                raise InputChangedError("an external file changed while it was read")
        context.close()
        manifest |= {
            "metrics": metrics,
            "environment": environment(),
            "started": started,
            "seconds": round(time.monotonic() - clock, 3),
        }
        self.store.publish(part, artifact, manifest)

    def _up_to_date(self, label: str, artifact: Artifact) -> StageReport:
        self.reporter.info(f"{self._count()} {label}: up to date")
        return StageReport(label, artifact, "up to date")

    def _count(self) -> str:
        number = len(self.reports) + 1
        return f"[{number}/{self.total}]" if self.total else f"[{number}]"
