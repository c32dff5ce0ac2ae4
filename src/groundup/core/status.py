"""Status of the stages of a pipeline: up to date, to build, or to build if an input changes. Builds nothing.

in:  the stages as plain records, in the order of the pipeline; the store; the manifests of the newest complete run
out: a report per stage with the fields that differ

The fingerprint of a stage needs the content of its inputs. Where an input is to be built, the content that the newest
run read is assumed; the report then says that the stage is built again if the content changes.
"""

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from groundup.core.digests import DigestCache
from groundup.core.fingerprint import canonical_json, digest, fingerprint_payload
from groundup.core.recipe import Recipe
from groundup.core.registry import FOLDER, local_sources
from groundup.core.runtime import Runtime
from groundup.core.stage import Stage, StageContext, flat_inputs
from groundup.core.store import Artifact, ArtifactKind, Store, verify

P = ParamSpec("P")
R = TypeVar("R", bound=Recipe)
State = Literal["up to date", "built", "to build", "to build if an input changes"]
Manifest = dict[str, Any]
NOT_BUILT = "not built"


@dataclass(frozen=True)
class PlannedStage:
    """One call of a stage, without its artifacts.

    identity: the recipe's canonical JSON; recipe: every field of it
    inputs: label of the stage that makes the input, by parameter name
    function: `module:name` of the stage, to read its external files
    plugin_folder: where the modules of the recipe's local plugins are; "" = it has none
    """

    label: str
    name: str
    version: int
    kind: ArtifactKind
    identity: dict[str, Any]
    recipe: dict[str, Any]
    inputs: dict[str, str]
    reads_records: bool
    function: str
    external: bool
    plugin_folder: str = ""

    def external_digest(self, digests: DigestCache) -> Any:
        """Digest of what the stage reads from outside the store; None = nothing."""
        if not self.external:
            return None
        module, name = self.function.split(":")
        stage: Stage[...] = getattr(importlib.import_module(module), name)
        assert stage.external_digest is not None
        parameters = inspect.signature(stage.function, eval_str=True).parameters
        recipe_type = next(iter(parameters.values())).annotation
        folder = Path(self.plugin_folder) if self.plugin_folder else None
        return stage.external_digest(
            recipe_type.model_validate(self.recipe, context={FOLDER: folder}), digests
        )


@dataclass(frozen=True)
class StageReport:
    """The state of one stage; `why` names the fields that differ. artifact: None = its fingerprint isn't known yet."""

    label: str
    artifact: Artifact | None
    state: State
    why: str = ""


@dataclass
class StageCollector:
    """A builder that makes nothing: it collects the stages that a pipeline calls."""

    stages: list[PlannedStage] = field(default_factory=list)
    artifacts: dict[str, Artifact] = field(default_factory=dict)

    def __call__(
        self,
        stage: Stage[Concatenate[R, Runtime, StageContext, P]],
        recipe: R,
        *inputs: P.args,
        **named: P.kwargs,
    ) -> Artifact:
        """A placeholder for the artifact: its path is the stage's label."""
        bound = flat_inputs(stage.bind(*inputs, **named))
        planned = plan_stage(stage, recipe, {key: item.path.name for key, item in bound.items()})
        self.stages.append(planned)
        placeholder = Artifact(Path(planned.label), "", planned.name, planned.kind)
        self.artifacts[planned.label] = placeholder
        return placeholder


def plan_stage(stage: Stage[...], recipe: Recipe, inputs: dict[str, str]) -> PlannedStage:
    """The record of a call. inputs: what is read, by parameter name."""
    return PlannedStage(
        stage.label(recipe),
        stage.name(recipe),
        stage.version,
        stage.artifact_kind(recipe),
        canonical_json(recipe),
        recipe.model_dump(mode="json"),
        inputs,
        stage.reads_records,
        f"{stage.function.__module__}:{stage.function.__qualname__}",
        stage.external_digest is not None,
        next((str(file.parent) for file in local_sources(recipe)), ""),
    )


def stage_reports(
    stages: Sequence[PlannedStage], store: Store, previous: dict[str, Manifest], digests: DigestCache
) -> list[StageReport]:
    """A report per stage. previous: manifests of the newest complete run by label."""
    reports: dict[str, StageReport] = {}
    for stage in stages:
        reports[stage.label] = _report(stage, reports, store, previous.get(stage.label), digests)
    digests.flush()
    return list(reports.values())


def _report(
    stage: PlannedStage,
    reports: dict[str, StageReport],
    store: Store,
    previous: Manifest | None,
    digests: DigestCache,
) -> StageReport:
    contents, pending = _contents(stage, reports, previous)
    external = stage.external_digest(digests)
    payload = fingerprint_payload(stage.name, stage.version, stage.identity, contents, external)
    if previous is None and pending:
        return StageReport(stage.label, None, "to build", "never built")
    artifact = store.artifact(stage.name, digest(payload), stage.kind)
    rebuilt = [label for label in pending if reports[label].state == "to build"]
    if stage.reads_records and rebuilt:
        return StageReport(stage.label, None, "to build", f"it prints the records of {', '.join(rebuilt)}")
    problem = verify(artifact.path, digests) if artifact.path.exists() else NOT_BUILT
    if problem is not None:
        return StageReport(stage.label, artifact, "to build", difference(stage, payload, previous, problem))
    if pending:
        why = f"built again if the content of {', '.join(pending)} changes"
        return StageReport(stage.label, artifact, "to build if an input changes", why)
    return StageReport(stage.label, artifact, "up to date")


def _contents(
    stage: PlannedStage, reports: dict[str, StageReport], previous: Manifest | None
) -> tuple[dict[str, str], list[str]]:
    """Content digests of the inputs by parameter, and the labels whose content is only assumed."""
    contents, pending = {}, []
    for key, label in stage.inputs.items():
        report = reports[label]
        if report.state == "up to date" and report.artifact is not None:
            contents[key] = report.artifact.digest(stage.reads_records)
        else:
            contents[key] = previous["inputs"].get(key, "") if previous else ""
            pending.append(label)
    return contents, pending


def difference(stage: PlannedStage, payload: Manifest, previous: Manifest | None, problem: str) -> str:
    """The fields that differ from the newest complete run, in one line. problem: why the artifact isn't usable."""
    if previous is None:
        return "never built"
    differences = []
    if previous["version"] != payload["version"]:
        differences.append(f"version {previous['version']} -> {payload['version']}")
    old, new = dict(flatten(previous["recipe"])), dict(flatten(stage.recipe))
    differences += [
        f"{key}: {_short(old.get(key, '(absent)'))} -> {_short(new.get(key, '(absent)'))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, "(absent)") != new.get(key, "(absent)")
    ]
    changed = [key for key, value in payload["inputs"].items() if previous["inputs"].get(key) != value]
    differences += [f"input {key} changed" for key in changed]
    if previous.get("external_digest") != digest(payload["external"]):
        differences.append("the source files changed")
    return "; ".join(differences) or ("missing" if problem == NOT_BUILT else f"damaged: {problem}")


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
